"""The C library as its users meet it: installed, found, linked, run; and the README's own code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vevents import EventLog

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "c"
README = (ROOT / "README.md").read_text(encoding="utf-8")
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


ENVIRONMENT = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}


def install(build: Path, destination: Path) -> Path:
    """Return the prefix into which the library was installed, as a distribution would."""
    command = ["meson", "install", "-C", str(build), "--destdir", str(destination), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    [header] = destination.rglob("vevents.h")
    return header.parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (BUILD / "build.ninja").exists():
        pytest.skip("./dev test-c has not built the C library")
    return install(BUILD, tmp_path_factory.mktemp("prefix"))


def flags(prefix: Path) -> list[str]:
    """What the .pc file says, read by hand since pkg-config need not be there."""
    [pc] = prefix.rglob("vevents.pc")
    fields = dict(re.findall(r"^(\w+)=(.*)$", pc.read_text(), re.MULTILINE))
    library = prefix / Path(fields["libdir"].replace("${prefix}", ".")).relative_to(".")
    assert list(library.glob("libvevents.so*"))
    return [f"-I{prefix}/include", f"-L{library}", f"-Wl,-rpath,{library}", "-lvevents"]


def test_example_links_and_python_reads_its_log(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "c_loop"
    source = ROOT / "csrc" / "examples" / "c_loop.c"
    command = ["cc", "-Wall", "-Werror", "-o", str(program), str(source), *flags(installed)]
    subprocess.run(command, check=True)
    image = tmp_path / "image.jpg"
    image.write_bytes(JPEG)
    done = subprocess.run(
        [program, tmp_path / "log", *[image] * 3], check=True, capture_output=True, text=True
    )
    assert "appended 3, pending 3, durable up to 3" in done.stdout
    with EventLog(tmp_path / "log") as log:
        events = [log.decode(record) for record in log.read()]
        assert [len(e.images[0].object_detections) for e in events] == [0, 1, 2]
        assert [(e.data or {})["result"] for e in events] == ["pass", "fail", "fail"]
        frame = events[0].images[0].frame
        assert frame is not None
        assert log.frame(frame) == JPEG  # type: ignore[arg-type]


def run_cpp(program: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(JPEG)
    log_dir = tmp_path / "log"
    done = subprocess.run(
        [program, log_dir, *[image] * 3], check=True, capture_output=True, text=True
    )
    assert "appended 3, pending 3, durable up to 3" in done.stdout
    with EventLog(log_dir) as log:
        events = [log.decode(record) for record in log.read()]
        found = [event.images[0].object_detections for event in events]
        assert [len(each) for each in found] == [0, 1, 2]
        assert (found[2][1].class_name, found[2][1].x, found[2][1].y) == ("scratch", 180.5, 140)
        assert [(e.data or {})["result"] for e in events] == ["pass", "fail", "fail"]
        frame = events[0].images[0].frame
        assert frame is not None
        assert log.frame(frame) == JPEG  # type: ignore[arg-type]


STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


def test_cpp_example_links(installed: Path, tmp_path: Path) -> None:
    source = ROOT / "csrc" / "examples" / "cpp_loop.cpp"
    command = ["c++", *STRICT, "-o", tmp_path / "cpp_loop", source, *flags(installed)]
    subprocess.run(command, check=True)
    run_cpp(tmp_path / "cpp_loop", tmp_path)


def test_cpp_says_what_is_wrong_and_closes_what_it_opened(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "errors.cpp"
    source.write_text(
        """
        #include <cstdio>
        #include <vevents/vevents.hpp>
        int main(int, char **argv)
        {
            try {
                vevents::Log missing(std::string(argv[1]) + "/a/b");
            } catch (const vevents::Error &error) {
                std::printf("%d %s\\n", error.status(), error.what());
            }
            vevents::Log first(argv[1]), log(std::move(first));
            vevents::Event event(VEV_KIND_QUALITY_CHECK);
            event.meta("n", 3).meta("ratio", 0.5).meta("ok", true).meta("text", "t");
            try {
                log.append(event);
            } catch (const vevents::Error &error) {
                std::printf("%d %s\\n", error.status(), error.what());
            }
            vevents::BasicEvent<64> small(VEV_KIND_CUSTOM);
            small.data("value", "a text that is too long for a buffer of so few bytes");
            try {
                log.append(small);
            } catch (const vevents::Error &error) {
                std::printf("%d %s\\n", error.status(), error.what());
            }
            event.data("result", "pass");
            vevents::Event again(VEV_KIND_QUALITY_CHECK);
            again = event;
            std::printf("%d\\n", (int)log.stats().appended);
        }
        """
    )
    program = tmp_path / "errors"
    subprocess.run(["c++", *STRICT, "-o", program, source, *flags(installed)], check=True)
    done = subprocess.run([program, tmp_path / "log"], check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2 ")
    assert "No such file" in lines[0]
    assert lines[1].startswith("-10 eventData.result: is missing")
    assert lines[2].startswith("-11 event: does not fit into the buffer of 64 bytes: larger than")
    assert "buffer of the event" in lines[2]
    assert lines[3] == "0"


def test_cpp_takes_every_integer_and_cuts_no_number(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "integers.cpp"
    source.write_text(
        """
        #include <cstdio>
        #include <type_traits>
        #include <vector>
        #include <vevents/vevents.hpp>
        template <typename T, typename = void> struct counts : std::false_type {};
        template <typename T>
        struct counts<T, std::void_t<decltype(std::declval<vevents::Event &>().data(
            "itemCount", std::declval<T>()))>> : std::true_type {};
        static_assert(counts<int>::value && counts<unsigned long long>::value);
        static_assert(!counts<double>::value && !counts<bool>::value);
        int main(int, char **argv)
        {
            vevents::Log log(argv[1]);
            std::vector<int> boxes(3);
            vevents::Event event(VEV_KIND_INVENTORY_COUNT);
            event.data("itemCount", 0)
                .meta("size", boxes.size())
                .meta("unsigned", 7u)
                .meta("long", -8L)
                .meta("long long", -9LL)
                .meta("byte", std::uint8_t{10})
                .meta("literal", 0)
                .meta("float", 0.5f)
                .meta("true", true)
                .meta("huge", ~0ull);
            log.append(event);
            vevents::Event huge(VEV_KIND_INVENTORY_COUNT);
            huge.data("itemCount", ~0ull);
            try {
                log.append(huge);
            } catch (const vevents::Error &error) {
                std::puts(error.what());
            }
        }
        """
    )
    program = tmp_path / "integers"
    strict = [*STRICT, "-pedantic", "-Wsign-conversion"]
    subprocess.run(["c++", *strict, "-o", program, source, *flags(installed)], check=True)

    done = subprocess.run([program, tmp_path / "log"], check=True, capture_output=True, text=True)

    assert done.stdout.startswith("eventData.itemCount: must be an integer")
    with EventLog(tmp_path / "log") as log:
        [event] = [log.decode(record) for record in log.read()]
    assert event.data == {"itemCount": 0}
    assert event.metadata == {
        "size": 3,
        "unsigned": 7,
        "long": -8,
        "long long": -9,
        "byte": 10,
        "literal": 0,
        "float": 0.5,
        "true": True,
        "huge": 2.0**64,
    }


def test_cpp_without_exceptions_is_told_the_way(installed: Path, tmp_path: Path) -> None:
    for header, words in (("vevents.hpp", "exceptions are off"), ("event.h", "")):
        source = tmp_path / "header.cpp"
        source.write_text(f"#include <vevents/{header}>\n")
        done = subprocess.run(
            ["c++", *STRICT, "-fno-exceptions", "-fsyntax-only", source, *flags(installed)[:1]],
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == bool(words), done.stderr
        assert words in done.stderr


def test_cpp_keeps_a_log_in_memory_with_a_copy(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "ram_first.cpp"
    source.write_text(
        """
        #include <cstdio>
        #include <filesystem>
        #include <vevents/vevents.hpp>
        static void say(const vevents::Error &error)
        {
            std::printf("%d %s\\n", error.status(), error.what());
        }
        int main(int, char **argv)
        {
            std::string memory(argv[1]), flash(argv[2]);
            try {
                vevents::Log::restore(memory, "flash", 0);
            } catch (const vevents::Error &error) {
                say(error);
            }
            std::printf("restored %d\\n", vevents::Log::restore(memory, flash, 60000));
            {
                vevents::Log log(memory);
                vevents::Event event(VEV_KIND_CUSTOM, "uc");
                log.append(event.data("value", "before the cut"));
                vev_persist_report report = log.persist();
                vev_copy_info info = log.copy_info();
                std::printf("wrote %d, durable %d, interval %d, in %s\\n", report.bytes_written > 0,
                            (int)report.durable_seq, (int)info.interval_ms, info.dir);
            }
            std::filesystem::remove_all(memory);
            std::printf("restored %d\\n", vevents::Log::restore(memory, flash, 60000));
            std::printf("appended %d\\n", (int)vevents::Log(memory).stats().appended);
            vevents::Log ordinary(memory + "-on-disk");
            try {
                ordinary.persist();
            } catch (const vevents::Error &error) {
                say(error);
            }
            try {
                (void)ordinary.copy_info();
            } catch (const vevents::Error &error) {
                say(error);
            }
        }
        """
    )
    program, memory, flash = (tmp_path / name for name in ("ram_first", "memory", "flash"))
    subprocess.run(["c++", *STRICT, "-o", program, source, *flags(installed)], check=True)
    done = subprocess.run([program, memory, flash], check=True, capture_output=True, text=True)
    invalid = "an argument is out of range"
    assert done.stdout.splitlines() == [
        f"-10 {memory} with its copy in flash: {invalid}",
        "restored 0",
        f"wrote 1, durable 1, interval 60000, in {flash}",
        "restored 1",
        "appended 1",
        f"-10 persist: {invalid}",
        f"-10 copy: {invalid}",
    ]
    with EventLog(memory) as log:
        [record] = log.read()
        assert (log.decode(record).data or {})["value"] == "before the cut"
        assert log.stats().conserved


needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not installed")


def configure(source: Path, prefix: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Let CMake prepare `source`/build from a CMakeLists.txt that uses the library in `prefix`."""
    head = "cmake_minimum_required(VERSION 3.13)\n"
    (source / "CMakeLists.txt").write_text(head + text)
    command = ["cmake", "-S", source, "-B", source / "build", f"-DCMAKE_PREFIX_PATH={prefix}"]
    return subprocess.run(command, capture_output=True, text=True)


def build(source: Path, target: str) -> Path:
    """Build what was configured; return the program."""
    done = subprocess.run(
        ["cmake", "--build", source / "build"], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "build" / target


@needs_cmake
@pytest.mark.parametrize(("wanted", "fits"), [("", True), ("0.1", True), ("0.99", False)])
@pytest.mark.parametrize("target", ["vevents", "vevents_static"])
def test_cmake_finds_the_library(
    installed: Path, tmp_path: Path, wanted: str, fits: bool, target: str
) -> None:
    configured = configure(
        tmp_path,
        installed,
        "project(demo CXX)\nset(CMAKE_CXX_STANDARD 17)\n"
        f"find_package(vevents {wanted} REQUIRED)\n"
        f"add_executable(cpp_loop {ROOT}/csrc/examples/cpp_loop.cpp)\n"
        f"target_link_libraries(cpp_loop vevents::{target})\n",
    )
    assert (configured.returncode == 0) == fits, configured.stderr
    if not fits:
        assert "0.1" in configured.stderr
        return
    program = build(tmp_path, "cpp_loop")
    run_cpp(program, tmp_path)
    needed = subprocess.run(["readelf", "-d", program], check=True, capture_output=True, text=True)
    assert ("libvevents.so" in needed.stdout) == (target == "vevents")


def functions_of(headers: Path) -> set[str]:
    """What the headers declare as VEV_API, comments left out."""
    text = "".join(path.read_text() for path in sorted(headers.glob("*.h")))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return {
        name
        for declaration in re.findall(r"\bVEV_API\b([^;{]*)[;{]", text)
        for name in re.findall(r"\b(vev_\w+)\(", declaration)[:1]
    }


def names_in(library: Path, *options: str) -> set[str]:
    command = ["nm", *options, "--defined-only", "--format=posix", str(library)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    entries = [line.split() for line in listed.splitlines() if " " in line]
    return {name.partition("@")[0] for name, kind, *_ in entries if kind != "A"}


def test_libraries_show_what_the_headers_declare_and_no_more(installed: Path) -> None:
    declared = functions_of(installed / "include" / "vevents")
    assert {"vev_log_open", "vev_log_append", "vev_event_begin"} <= declared
    [shared] = [p for p in installed.rglob("libvevents.so.0") if p.is_file()]
    [static] = installed.rglob("libvevents.a")
    assert names_in(shared, "-D") == declared
    assert names_in(static, "-g") == declared


@pytest.mark.parametrize("header", ["vevents.h", "event.h", "vevents.hpp"])
@pytest.mark.parametrize("language", ["c", "c++"])
def test_headers_compile_alone_without_a_word(installed: Path, header: str, language: str) -> None:
    if header.endswith("hpp") and language == "c":
        pytest.skip("a header for C++")
    flags = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    standard = {
        "c": ["cc", "-std=c11", "-Wstrict-prototypes"],
        "c++": ["c++", "-std=c++17", "-Wold-style-cast", "-Wzero-as-null-pointer-constant"],
    }[language]
    command = [*standard, *flags, f"-I{installed}/include", "-x", language, "-fsyntax-only", "-"]
    done = subprocess.run(
        command, input=f"#include <vevents/{header}>\n", capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of a library with the vendored zstd inside, as without one on the system."""
    folder = ROOT / "build" / "c-bundled"
    if shutil.which("meson", path=ENVIRONMENT["PATH"]) is None:
        pytest.skip("meson is not installed")
    if not (folder / "build.ninja").exists():
        command = ["meson", "setup", str(folder), str(ROOT), "-Dzstd=bundled"]
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return install(folder, tmp_path_factory.mktemp("bundled"))


# An application's own zstd, of which libvevents must touch nothing.
OWN_ZSTD = """
#include <stdlib.h>
unsigned ZSTD_versionNumber(void) { return 42; }
void *ZSTD_createCCtx(void) { abort(); }
void *ZSTD_createCDict(const void *dict, size_t size, int level)
{
    (void)dict; (void)size; (void)level;
    abort();
}
size_t ZSTD_compress2(void *c, void *d, size_t dc, const void *s, size_t ss)
{
    (void)c; (void)d; (void)dc; (void)s; (void)ss;
    abort();
}
"""

WITH_OWN_ZSTD = """
#include <stdio.h>
#include <vevents/event.h>
unsigned ZSTD_versionNumber(void);
int main(int argc, char **argv)
{
    vev_log *log;
    vev_event event;
    vev_stats stats;
    char buffer[1024];
    if (argc != 2 || vev_log_open(argv[1], NULL, &log) != VEV_OK)
        return 1;
    for (int i = 0; i < 100; i++) {
        vev_event_begin(&event, buffer, sizeof buffer, VEV_KIND_CUSTOM, "uc");
        vev_event_data_str(&event, "value", "zstd zstd zstd zstd zstd zstd zstd zstd "
            "zstd zstd zstd zstd zstd zstd zstd zstd zstd zstd zstd zstd zstd zstd zstd");
        if (vev_log_append_event(log, &event, NULL) != VEV_OK)
            return 2;
    }
    if (vev_log_stats(log, VEV_EVENTS, &stats) != VEV_OK)
        return 3;
    vev_log_close(log);
    printf("%u %d\\n", ZSTD_versionNumber(), (int)stats.appended);
    return 0;
}
"""


def run_beside_own_zstd(program: Path, log_dir: Path) -> None:
    done = subprocess.run([program, log_dir], check=True, capture_output=True, text=True)
    assert done.stdout == "42 100\n"
    with EventLog(log_dir, read_only=True) as log:
        stats = log.stats()
        assert (stats.appended, stats.pending, stats.conserved) == (100, 100, True)
        records = list(log.read())
        assert all(record.stored_size < len(record.payload) for record in records)


@pytest.mark.slow
@pytest.mark.parametrize("own_first", [True, False])
def test_static_library_beside_an_applications_own_zstd(
    bundled: Path, tmp_path: Path, own_first: bool
) -> None:
    for name, text in (("own", OWN_ZSTD), ("main", WITH_OWN_ZSTD)):
        (tmp_path / f"{name}.c").write_text(text)
        include = f"-I{bundled}/include"
        command = ["cc", "-c", include, f"{tmp_path}/{name}.c", "-o", f"{tmp_path}/{name}.o"]
        subprocess.run(command, check=True)
    subprocess.run(["ar", "rcs", tmp_path / "libown.a", tmp_path / "own.o"], check=True)
    libraries = [tmp_path / "libown.a", *bundled.rglob("libvevents.a")]
    if not own_first:
        libraries.reverse()
    program = tmp_path / "main"
    link = ["cc", "-o", program, tmp_path / "main.o", *libraries, "-pthread"]
    subprocess.run(link, check=True)
    run_beside_own_zstd(program, tmp_path / "log")


@needs_cmake
@pytest.mark.slow
@pytest.mark.parametrize(
    "libraries", ["zstd vevents::vevents_static", "vevents::vevents_static zstd"]
)
def test_cmake_links_statically_beside_an_applications_own_zstd(
    bundled: Path, tmp_path: Path, libraries: str
) -> None:
    (tmp_path / "own.c").write_text(OWN_ZSTD)
    (tmp_path / "main.c").write_text(WITH_OWN_ZSTD)
    configured = configure(
        tmp_path,
        bundled,
        "project(demo C)\nfind_package(vevents REQUIRED)\n"
        "add_library(zstd STATIC own.c)\nadd_executable(main main.c)\n"
        f"target_link_libraries(main {libraries})\n",
    )
    assert configured.returncode == 0, configured.stderr
    run_beside_own_zstd(build(tmp_path, "main"), tmp_path / "log")


def test_readme_c_code_runs(installed: Path, tmp_path: Path) -> None:
    [code] = blocks("c")
    body = code.replace("/var/lib/camera-log", str(tmp_path / "log"))
    source = tmp_path / "readme.c"
    source.write_text(
        "#include <stdio.h>\n#include <vevents/event.h>\n"
        f"int main(void)\n{{\n{body}\nvev_log_close(log);\nreturn 0;\n}}\n"
    )
    program = tmp_path / "readme"
    subprocess.run(["cc", "-Wall", "-o", str(program), str(source), *flags(installed)], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    with EventLog(tmp_path / "log") as log:
        assert log.stats().pending == 1


def test_readme_python_code_runs(tmp_path: Path) -> None:
    [code] = blocks("python")
    code = code.replace("/var/lib/camera-log", str(tmp_path / "log"))
    exec(compile(code, "README.md", "exec"), {"frame": JPEG})
    with EventLog(tmp_path / "log") as log:
        [record] = log.read()
        [image] = log.decode(record).images
        assert image.object_detections[0].confidence == 0.913
        assert image.frame is not None
        assert log.frame(image.frame) == JPEG  # type: ignore[arg-type]
