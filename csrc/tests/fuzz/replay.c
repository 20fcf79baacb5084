/* Runs one fuzz target on stored inputs, as a plain test: replay CORPUS...
 *
 * A corpus is a text file with one input a line, in hex; lines with # are comments. An input that
 * a fuzzer found is added as a line and stays for ever. Each input lies on the heap in exactly its
 * size, so that a read beyond it is seen by ASan. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Run the input on one line. Returns false if the line is not hex. */
static int run_line(const char *line)
{
    size_t digit_count = strspn(line, "0123456789abcdef");
    if (digit_count % 2 != 0 || (line[digit_count] != '\n' && line[digit_count] != '\0'))
        return 0;
    size_t size = digit_count / 2;
    uint8_t *data = malloc(size != 0 ? size : 1);
    if (data == NULL)
        return 0;
    for (size_t i = 0; i < size; i++) {
        char digits[3] = {line[2 * i], line[2 * i + 1], '\0'};
        data[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

int main(int argc, char **argv)
{
    size_t input_count = 0;
    for (int i = 1; i < argc; i++) {
        FILE *corpus = fopen(argv[i], "re");
        if (corpus == NULL) {
            perror(argv[i]);
            return 1;
        }
        char *line = NULL;
        size_t line_cap = 0;
        while (getline(&line, &line_cap, corpus) > 0) {
            if (line[0] == '#')
                continue;
            if (!run_line(line)) {
                fprintf(stderr, "%s: not hex: %s", argv[i], line);
                return 1;
            }
            input_count++;
        }
        free(line);
        fclose(corpus);
    }
    printf("%zu inputs\n", input_count);
    return input_count != 0 ? 0 : 1; /* a corpus that is not there proves nothing */
}
