// An inference loop that logs what it sees: cpp_loop LOG_DIRECTORY IMAGE...
//
// c++ -std=c++17 cpp_loop.cpp $(pkg-config --cflags --libs vevents) -o cpp_loop
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

#include <vevents/vevents.hpp>

namespace
{

// In place of a model: boxes that wander through the picture, none in every third.
struct Detector {
    static constexpr const char *class_names[] = {"burr", "scratch"};
    std::vector<float> xyxy, confidence;
    std::vector<std::int64_t> class_id;

    void infer(int frame_number)
    {
        xyxy.clear();
        confidence.clear();
        class_id.clear();
        for (int i = 0; i < frame_number % 3; i++) {
            float left = 82 + 40.0f * static_cast<float>(frame_number);
            float top = 48.75f + 80.0f * static_cast<float>(i);
            xyxy.insert(xyxy.end(), {left, top, left + 37, top + 22.5f});
            confidence.push_back(0.9f - 0.1f * static_cast<float>(i));
            class_id.push_back(i);
        }
    }

    vev_boxes boxes() const
    {
        return {xyxy.data(),     confidence.data(), class_id.data(),
                class_id.size(), class_names,       std::size(class_names)};
    }
};

} // namespace

int main(int argc, char **argv)
try {
    if (argc < 3) {
        std::cerr << "cpp_loop LOG_DIRECTORY IMAGE...\n";
        return 1;
    }
    vevents::Log log(argv[1]);
    // What the events have in common is built once for each of the two results.
    vevents::Event passed(VEV_KIND_QUALITY_CHECK, "press-line");
    passed.device("press-03").data("result", "pass");
    vevents::Event failed(VEV_KIND_QUALITY_CHECK, "press-line");
    failed.device("press-03").data("result", "fail");

    Detector detector;
    for (int i = 2; i < argc; i++) {
        std::ifstream file(argv[i], std::ios::binary);
        std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
        detector.infer(i - 2);
        vevents::Frame frame = log.append_frame(image.data(), image.size(), VEV_IMAGE_JPEG);
        vevents::Event event = detector.class_id.empty() ? passed : failed;
        event.image("top camera", frame).boxes(detector.boxes()).image_end();
        log.append(event);
    }
    log.sync();
    vev_stats events = log.stats();
    std::cout << "appended " << events.appended << ", pending " << events.pending
              << ", durable up to " << log.durable_seq() << "\n";
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
}
