/** vevents for C++17: the C functions behind values that clean up and throw. Where exceptions are off,
 *  event.h is for C++ as well.
 *
 *      vevents::Log log("/var/lib/camera-log");
 *      vevents::Frame frame = log.append_frame(jpeg.data(), jpeg.size(), VEV_IMAGE_JPEG);
 *      vevents::Event event(VEV_KIND_QUALITY_CHECK, "press-line");
 *      event.device("press-03").data("result", "fail");
 *      event.image("top camera", frame).detection("burr", 812.5, 403, 37, 22, 0.913).image_end();
 *      log.append(event);
 *
 *  Header only, over vevents.h and event.h, whose comments say what each call does; nothing here
 *  allocates but the message of an exception. An event is built on the stack.
 *
 *  @par Threads  As for the C functions: any number may append to one Log; one builds an Event. */
#ifndef VEVENTS_VEVENTS_HPP
#define VEVENTS_VEVENTS_HPP

#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "vevents/event.h"

#ifndef __cpp_exceptions
#error "vevents.hpp throws; where exceptions are off, vevents/event.h does the same without them"
#endif

namespace vevents
{

/** A call failed. */
class Error : public std::runtime_error
{
  public:
    Error(vev_status status, const std::string &what)
        : std::runtime_error(what + ": " + vev_strerror(status)), status_(status)
    {
    }
    /** VEV_E_..., or an errno. */
    vev_status status() const noexcept { return status_; }

  private:
    vev_status status_;
};

inline void check(vev_status status, const char *what)
{
    if (status != VEV_OK)
        throw Error(status, what);
}

/** A frame in the media ring. */
struct Frame {
    std::uint64_t seq = 0;
    std::array<std::uint8_t, 16> digest{};
    std::uint64_t size = 0;
};

/** What an append returned. */
struct Receipt {
    std::uint64_t seq = 0;
    std::array<std::uint8_t, 16> id{};
    std::int64_t wall_ns = 0;
};

/** Every integer, but no bool: what is counted. */
template <typename T>
using IfInteger = std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, int>;

/** One event, built in a buffer of its own. Errors stick and come out at Log::append(). */
template <std::size_t Capacity> class BasicEvent
{
  public:
    explicit BasicEvent(int kind, const char *use_case_id = nullptr) noexcept
    {
        vev_event_begin(&event_, buffer_, sizeof buffer_, kind, use_case_id);
    }
    /** What it has in common with others is built once and copied. */
    BasicEvent(const BasicEvent &from) noexcept
    {
        vev_event_copy(&event_, buffer_, sizeof buffer_, &from.event_);
    }
    BasicEvent &operator=(const BasicEvent &from) noexcept
    {
        if (this != &from)
            vev_event_copy(&event_, buffer_, sizeof buffer_, &from.event_);
        return *this;
    }
    ~BasicEvent() = default;

    BasicEvent &id(const char *value) noexcept { return vev_event_id(&event_, value), *this; }
    BasicEvent &time(std::int64_t wall_ns) noexcept
    {
        return vev_event_time(&event_, wall_ns), *this;
    }
    BasicEvent &device(const char *value) noexcept
    {
        return vev_event_device(&event_, value), *this;
    }
    BasicEvent &stream(const char *value) noexcept
    {
        return vev_event_stream(&event_, value), *this;
    }
    BasicEvent &workflow(const char *value) noexcept
    {
        return vev_event_workflow(&event_, value), *this;
    }
    BasicEvent &data(const char *key, const char *value) noexcept
    {
        return vev_event_data_str(&event_, key, value), *this;
    }
    template <typename T, IfInteger<T> = 0> BasicEvent &data(const char *key, T value) noexcept
    {
        if (!fits(value)) /* a text is no integer either, and refused as that */
            return data(key, "more than an int64_t holds");
        return vev_event_data_int(&event_, key, static_cast<std::int64_t>(value)), *this;
    }
    BasicEvent &meta(const char *key, const char *value) noexcept
    {
        return vev_event_meta_str(&event_, key, value), *this;
    }
    /** What an int64_t does not hold becomes the nearest double. */
    template <typename T, IfInteger<T> = 0> BasicEvent &meta(const char *key, T value) noexcept
    {
        if (!fits(value))
            return meta(key, static_cast<double>(value));
        return vev_event_meta_int(&event_, key, static_cast<std::int64_t>(value)), *this;
    }
    BasicEvent &meta(const char *key, double value) noexcept
    {
        return vev_event_meta_num(&event_, key, value), *this;
    }
    BasicEvent &meta(const char *key, bool value) noexcept
    {
        return vev_event_meta_bool(&event_, key, value), *this;
    }
    BasicEvent &display_image(std::uint32_t position) noexcept
    {
        return vev_event_display_image(&event_, position), *this;
    }
    /** Begin an image; end it with image_end(). */
    BasicEvent &image(const char *label = nullptr) noexcept
    {
        return vev_event_image_begin(&event_, label), *this;
    }
    BasicEvent &image(const char *label, const Frame &frame) noexcept
    {
        image(label);
        return vev_event_image_frame(&event_, frame.seq, frame.digest.data(), frame.size), *this;
    }
    BasicEvent &detection(const char *class_name, double x, double y, double width, double height,
                          double confidence) noexcept
    {
        vev_event_detection(&event_, class_name, x, y, width, height, confidence);
        return *this;
    }
    BasicEvent &boxes(const vev_boxes &boxes) noexcept
    {
        return vev_event_boxes(&event_, &boxes), *this;
    }
    BasicEvent &rows(const float *rows, std::size_t count, const char *const *class_names,
                     std::size_t class_count) noexcept
    {
        return vev_event_rows(&event_, rows, count, class_names, class_count), *this;
    }
    BasicEvent &classification(const char *class_name, double confidence) noexcept
    {
        return vev_event_classification(&event_, class_name, confidence), *this;
    }
    BasicEvent &image_end() noexcept { return vev_event_image_end(&event_), *this; }

    /** For the functions of event.h that have no member here. */
    vev_event *c_event() noexcept { return &event_; }

  private:
    template <typename T> static constexpr bool fits([[maybe_unused]] T value) noexcept
    {
        if constexpr (std::is_unsigned_v<T> && sizeof(T) >= sizeof(std::int64_t))
            return value <= static_cast<T>(std::numeric_limits<std::int64_t>::max());
        else
            return true;
    }

    vev_event event_;
    unsigned char buffer_[Capacity];
};

/** Room for about 120 detections. */
using Event = BasicEvent<4096>;

/** An open log. Syncs and closes when it goes. */
class Log
{
  public:
    static vev_options default_options() noexcept
    {
        vev_options options;
        vev_options_init(&options);
        return options;
    }

    explicit Log(const char *dir, const vev_options &options = default_options())
    {
        check(vev_log_open(dir, &options, &log_), dir);
    }
    explicit Log(const std::string &dir, const vev_options &options = default_options())
        : Log(dir.c_str(), options)
    {
    }

    /** RAM-first, see vev_log_restore(): call it before every opening of a log that lives in memory.
     *  @return whether the log was taken from the copy. */
    static bool restore(const char *dir, const char *copy_dir, std::uint32_t interval_ms)
    {
        int restored;
        vev_status status = vev_log_restore(dir, copy_dir, interval_ms, &restored);
        if (status != VEV_OK)
            throw Error(status, std::string(dir) + " with its copy in " + copy_dir);
        return restored != 0;
    }
    static bool restore(const std::string &dir, const std::string &copy_dir,
                        std::uint32_t interval_ms)
    {
        return restore(dir.c_str(), copy_dir.c_str(), interval_ms);
    }

    Log(Log &&other) noexcept : log_(std::exchange(other.log_, nullptr)) {}
    Log &operator=(Log &&other) noexcept
    {
        std::swap(log_, other.log_);
        return *this;
    }
    Log(const Log &) = delete;
    Log &operator=(const Log &) = delete;
    ~Log() { vev_log_close(log_); }

    /** Append an event. @throw Error  its message names the field if the event breaks a limit. */
    template <std::size_t Capacity> Receipt append(BasicEvent<Capacity> &event, bool sync = false)
    {
        vev_entry entry{};
        entry.flags = sync ? static_cast<std::uint32_t>(VEV_APPEND_SYNC) : 0;
        vev_status status = vev_log_append_event(log_, event.c_event(), &entry);
        if (status != VEV_OK) {
            const char *reason = vev_event_error(event.c_event());
            throw Error(status, *reason ? reason : "append");
        }
        return receipt(entry);
    }

    /** Append an encoded image to the media ring. @param kind  VEV_IMAGE_... */
    Frame append_frame(const void *data, std::size_t size, std::uint32_t kind)
    {
        vev_entry entry{};
        entry.flags = VEV_APPEND_ID | VEV_APPEND_RAW;
        entry.kind = kind;
        vev_frame_digest(data, size, entry.id);
        check(vev_log_append(log_, VEV_MEDIA, data, size, &entry), "frame");
        Receipt stored = receipt(entry);
        return Frame{stored.seq, stored.id, size};
    }

    /** Make everything appended so far survive a power cut. */
    std::uint64_t sync()
    {
        std::uint64_t durable;
        check(vev_log_sync(log_, &durable), "sync");
        return durable;
    }

    /** sync() of a RAM-first log, with what it wrote to the copy. */
    vev_persist_report persist()
    {
        vev_persist_report report;
        check(vev_log_persist(log_, &report), "persist");
        return report;
    }

    /** How the copy of a RAM-first log is. */
    vev_copy_info copy_info() const
    {
        vev_copy_info info;
        check(vev_log_copy_info(log_, &info), "copy");
        return info;
    }

    std::uint64_t durable_seq(int stream = VEV_EVENTS) const noexcept
    {
        return vev_log_durable_seq(log_, stream);
    }

    vev_stats stats(int stream = VEV_EVENTS) const
    {
        vev_stats stats;
        check(vev_log_stats(log_, stream, &stats), "stats");
        return stats;
    }

    /** For the functions of vevents.h that have no member here. */
    vev_log *c_log() const noexcept { return log_; }

  private:
    static Receipt receipt(const vev_entry &entry) noexcept
    {
        Receipt made;
        made.seq = entry.seq;
        made.wall_ns = entry.wall_ns;
        for (std::size_t i = 0; i < made.id.size(); i++)
            made.id[i] = entry.id[i];
        return made;
    }

    vev_log *log_ = nullptr;
};

} // namespace vevents

#endif
