"""Make vision events as devices see them, and train the zstd dictionary of the library on them.

Usage: train_dictionary.py [--output FILE] [--samples COUNT]

A record is compressed alone, so that it can be read, evicted and lost alone; the dictionary is
what makes that pay. It has to know what all events share (the keys, the msgpack framing, common
words) and must not learn what only one device says, so every training event comes from a device
of its own. What it is worth is measured on events that it was not trained on, once with the
vocabulary of the training and once with industries that the training never saw.

The same version of libzstd gives the same dictionary every time. A log stores the dictionary that
it was written with, so a new one concerns new logs only.
"""

from __future__ import annotations

import argparse
import random
import statistics
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import zstandard

from vevents.codec import encode
from vevents.event import (
    Classification,
    Event,
    EventFields,
    FrameRef,
    Image,
    InstanceSegmentation,
    Keypoint,
    KeypointDetection,
    ObjectDetection,
)

DICTIONARY_SIZE = 8 * 1024
DICTIONARY_ID = 0x76657631  # "vev1"
LEVEL = 1
SEGMENT_SIZES = (48, 64, 80, 96, 112, 128, 144, 160, 208, 256, 320, 400, 500, 700)

_OUTPUT = Path(__file__).resolve().parents[1] / "csrc" / "dictionary" / "events.zdict"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_FLOAT32 = struct.Struct("<f")


@dataclass(frozen=True, slots=True)
class Domain:
    """The words of one industry.

    Attributes:
        classes: What its models find.
        places: Parts of device, stream and location names.
        items: What it counts.
        alerts: Types of its alerts, each with a description.
        values: Texts of its custom events.
        metadata: Keys of its metadata, each with what its values look like.
    """

    classes: Sequence[str]
    places: Sequence[str]
    items: Sequence[str]
    alerts: Sequence[tuple[str, str]]
    values: Sequence[str]
    metadata: Sequence[tuple[str, str]]


def _words(text: str) -> list[str]:
    return text.split()


DOMAINS = (
    Domain(  # everyday objects, the vocabulary of the common public models
        classes=[
            *_words(
                "person bicycle car motorcycle airplane bus train truck boat bench bird cat dog "
                "horse sheep cow backpack umbrella handbag tie suitcase bottle cup fork knife "
                "spoon bowl banana apple sandwich orange pizza cake chair couch bed tv laptop "
                "mouse remote keyboard microwave oven toaster sink refrigerator book clock vase "
                "scissors"
            ),
            "traffic light",
            "fire hydrant",
            "stop sign",
            "parking meter",
            "cell phone",
            "potted plant",
            "dining table",
            "sports ball",
            "teddy bear",
            "wine glass",
        ],
        places=("lobby", "office", "entrance", "hall", "room", "garage", "floor", "desk"),
        items=("person", "chair", "laptop", "parcel", "visitor"),
        alerts=(
            ("intrusion", "Person detected after hours"),
            ("loitering", "Person stays in the area for more than 60 seconds"),
            ("unattended_object", "Bag left behind without its owner"),
        ),
        values=("occupancy changed", "room empty", "person entered", "person left", "heartbeat"),
        metadata=(("room", "text"), ("floor", "int"), ("fps", "real"), ("model", "model")),
    ),
    Domain(  # manufacturing
        classes=_words(
            "scratch dent burr crack defect chip stain hole corrosion contamination missing_part "
            "misalignment weld porosity bubble discoloration screw bolt nut washer gasket label "
            "barcode connector pin solder_bridge cold_joint ok ng good bad broken bent foreign"
        ),
        places=("press", "line", "station", "cell", "cnc", "weld", "paint", "assembly", "qa"),
        items=("screw", "housing", "part", "blank", "carton"),
        alerts=(
            ("machine_guard_open", "Guard of the machine is open while it runs"),
            ("no_glasses", "Person without safety glasses at the machine"),
            ("spill", "Liquid on the floor next to the machine"),
        ),
        values=("tool change", "line stopped", "line started", "calibration done", "batch start"),
        metadata=(
            ("line", "text"),
            ("shift", "shift"),
            ("operator", "text"),
            ("batch", "text"),
            ("temperature_c", "real"),
            ("cycle_time_ms", "int"),
            ("operator_present", "bool"),
        ),
    ),
    Domain(  # shops and warehouses
        classes=_words(
            "product shelf empty_shelf price_tag bottle can box carton pallet barcode basket cart "
            "customer employee package parcel forklift container crate bag sku out_of_stock "
            "milk cereal soda snack bread box_damaged label_missing"
        ),
        places=("store", "aisle", "shelf", "checkout", "warehouse", "dock", "rack", "zone"),
        items=("euro pallet", "pallet", "box", "carton", "bottle", "product", "tote"),
        alerts=(
            ("blocked_exit", "Emergency exit is blocked by goods"),
            ("queue_too_long", "More than 5 customers wait at the checkout"),
            ("forklift_near_person", "Forklift closer than 2 meters to a person"),
        ),
        values=("shelf refilled", "queue length", "door state changed to open", "plate unreadable"),
        metadata=(
            ("store", "int"),
            ("aisle", "text"),
            ("row", "int"),
            ("sku", "text"),
            ("queue_length", "int"),
            ("weight_kg", "real"),
        ),
    ),
    Domain(  # streets
        classes=_words(
            "car truck bus motorcycle bicycle pedestrian van trailer scooter ambulance plate "
            "traffic_light_red traffic_light_green vehicle cyclist wrong_way accident lane debris"
        ),
        places=("junction", "road", "gate", "bridge", "tunnel", "parking", "north", "south"),
        items=("vehicle", "car", "truck", "free parking space", "bicycle"),
        alerts=(
            ("wrong_way_driver", "Vehicle drives against the traffic"),
            ("stopped_vehicle", "Vehicle stands on the lane"),
            ("red_light_violation", "Vehicle passed at red"),
        ),
        values=("vehicle counted", "night mode", "traffic jam", "plate read", "line crossed"),
        metadata=(
            ("lane", "int"),
            ("direction", "text"),
            ("speed_kmh", "real"),
            ("weather", "text"),
            ("delivered_late", "bool"),
            ("tracker_id", "int"),
        ),
    ),
    Domain(  # work safety
        classes=[
            *_words(
                "hardhat no_hardhat helmet no_helmet vest no_vest person gloves no_gloves mask "
                "no_mask goggles fall fire smoke ladder harness excavator crane worker"
            ),
            "safety vest",
            "hard hat",
            "NO-Hardhat",
            "NO-Safety Vest",
            "Safety Cone",
        ],
        places=("site", "dock", "scaffold", "yard", "crane", "zone", "tower", "plant"),
        items=("worker", "vehicle", "person", "machine"),
        alerts=(
            ("no_hardhat", "Person without a helmet inside the loading zone"),
            ("no_vest", "Person without a safety vest"),
            ("fall_detected", "Person lies on the ground"),
            ("fire", "Flames or smoke detected"),
            ("zone_violation", "Person inside the restricted zone"),
        ),
        values=("zone cleared", "headcount", "work started", "work stopped"),
        metadata=(
            ("zone", "text"),
            ("site", "text"),
            ("reviewer", "text"),
            ("duration_s", "real"),
            ("confirmed", "bool"),
            ("camera", "text"),
        ),
    ),
)

# Used for no decision here: what the dictionary does for users whose words it cannot know.
UNSEEN_DOMAINS = (
    Domain(
        classes=_words("ripe unripe bruised mildew aphid whitefly tomato cucumber blossom trellis"),
        places=("greenhouse", "tunnel-bed", "orchard", "packhouse"),
        items=("cucumber", "punnet", "seedling tray"),
        alerts=(("frost_risk", "Leaf temperature dropped below two degrees"),),
        values=("irrigation valve stuck", "harvest window opened"),
        metadata=(("cultivar", "text"), ("humidity", "real"), ("bench_no", "int")),
    ),
    Domain(
        classes=_words("salmon sea_louse wound kelp buoy net_tear gull trawler skipjack bycatch"),
        places=("pen", "barge", "quay", "hatchery"),
        items=("smolt", "lobster pot", "fish tote"),
        alerts=(("net_breach", "Gap wider than a hand in the net wall"),),
        values=("feeding paused", "biomass estimate drifted"),
        metadata=(("salinity", "real"), ("cohort", "text"), ("night_feed", "bool")),
    ),
    Domain(
        classes=_words(
            "syringe vial catheter gauze clamp scalpel tray_incomplete drape wheelchair"
        ),
        places=("theatre", "ward", "sterile-services", "pharmacy"),
        items=("vial", "instrument tray", "sharps bin"),
        alerts=(("patient_out_of_bed", "Patient left the bed without assistance"),),
        values=("tray count mismatch", "hand hygiene moment missed"),
        metadata=(("ward", "text"), ("autoclave", "int"), ("supervised", "bool")),
    ),
)


def sample_events(
    seed: int,
    count: int,
    *,
    domains: Sequence[Domain] = DOMAINS,
    events_per_device: int = 1,
) -> Iterator[Event]:
    """Make events as they come from cameras: valid, varied, and the same for the same seed.

    Args:
        seed: Of the random numbers.
        count: How many.
        domains: Whose words they use.
        events_per_device: After how many the next device takes over.

    Yields:
        Events with ids and rising timestamps, whose frames are `FrameRef`s.
    """
    rng = random.Random(seed)
    moment = _BEGIN
    device = _Device(rng, rng.choice(domains))
    for index in range(count):
        if index and index % events_per_device == 0:
            device = _Device(rng, rng.choice(domains))
        moment += timedelta(microseconds=rng.randrange(20_000, 5_000_000))
        yield device.event(moment)


def typical_event(rng: random.Random, domain: Domain, decimals: int | None = None) -> Event:
    """Make the event that sizes are quoted for: five boxes, all ids, one frame.

    Args:
        rng: Random numbers.
        domain: Its words.
        decimals: Of the coordinates; None leaves them as a model gives them, full float32.
    """
    device = _Device(rng, domain)
    device.number = lambda low, high: _rounded(rng.uniform(low, high), decimals)
    device.confidence_decimals = None if decimals is None else 2 + decimals
    return Event.quality_check(
        result=rng.choice(("pass", "fail")),
        external_id=_external_id(rng),
        use_case_id=f"{rng.getrandbits(32):08x}",
        device_id=device.device_id,
        stream_id=device.stream_id or "main",
        images=[Image(device.frame(), object_detections=[device.detection() for _ in range(5)])],
        display_image_position=0,
    )


class _Device:
    """One camera with a model: its ids, its words, and how it writes numbers."""

    def __init__(self, rng: random.Random, domain: Domain) -> None:
        self.rng = rng
        self.domain = domain
        place, number = rng.choice(domain.places), rng.randrange(1, 40)
        self.device_id = rng.choice(
            (
                f"{place}-{number}",
                f"{place}-{number:02}-cam-{rng.randrange(1, 9)}",
                f"cam-{number:02}",
                f"{place}_{number}",
                f"edge-{rng.randrange(10_000):04}",
                f"jetson-{rng.getrandbits(24):06x}",
                str(UUID(int=rng.getrandbits(128), version=4)),
            )
        )
        self.stream_id = rng.choice(
            (None, f"{place}-{number}", f"stream-{number % 8}", f"cam{number % 8}", "main", place)
        )
        self.workflow_id = rng.choice((None, None, f"{place}-check", "detect-and-count", "custom"))
        self.use_case_id = rng.choice((None, f"{rng.getrandbits(32):08x}", f"{place}-monitoring"))
        self.width, self.height = rng.choice(((640, 480), (1280, 720), (1920, 1080), (2592, 1944)))
        decimals = rng.choice((None, None, 1, 0))
        self.number: Callable[[float, float], float] = lambda low, high: _rounded(
            rng.uniform(low, high), decimals
        )
        self.confidence_decimals = rng.choice((None, None, 3, 2))
        self.label = rng.choice((None, None, "workflow", place, "frame"))
        self.has_metadata = rng.random() < 0.6
        self.has_input_frame = rng.random() < 0.2
        self.task = rng.choices(
            (self.detections, self.segmentations, self.keypoints, self.classifications),
            weights=(60, 12, 12, 16),
        )[0]

    def event(self, moment: datetime) -> Event:
        rng, domain = self.rng, self.domain
        images = [self.image()] if rng.random() < 0.9 else []
        fields: EventFields = {
            "use_case_id": self.use_case_id,
            "images": images,
            "device_id": self.device_id,
            "stream_id": self.stream_id,
            "workflow_id": self.workflow_id,
            "metadata": self.metadata() if self.has_metadata else None,
            "display_image_position": 0 if images and rng.random() < 0.5 else None,
            "event_id": str(UUID(int=rng.getrandbits(128), version=4)),
            "timestamp": moment,
        }
        external_id = _external_id(rng) if rng.random() < 0.5 else None
        kind = rng.choices(range(5), weights=(35, 20, 20, 20, 5))[0]
        if kind == 0:
            result = rng.choice(("pass", "pass", "pass", "fail"))
            return Event.quality_check(result=result, external_id=external_id, **fields)
        if kind == 1:
            return Event.inventory_count(
                item_count=int(rng.expovariate(0.05)),
                item_type=rng.choice(domain.items),
                location=f"{rng.choice(domain.places)}/{rng.choice('abcdef')}{rng.randrange(20)}",
                external_id=external_id,
                **fields,
            )
        if kind == 2:
            alert_type, description = rng.choice(domain.alerts)
            return Event.safety_alert(
                alert_type=alert_type,
                severity=rng.choice(("low", "medium", "high")),
                description=rng.choice((None, description)),
                external_id=external_id,
                **fields,
            )
        if kind == 3:
            value = rng.choice(domain.values)
            return Event.custom(value=value, external_id=external_id, **fields)
        fields["images"], fields["display_image_position"] = (), None
        return Event.operator_feedback(
            related_event_id=str(UUID(int=rng.getrandbits(128), version=4)),
            feedback=rng.choice(("correct", "incorrect", "inconclusive")),
            **fields,
        )

    def image(self) -> Image:
        annotations = self.task()
        return Image(
            self.frame() if self.rng.random() < 0.8 else None,
            input_frame=self.frame() if self.has_input_frame else None,
            label=self.label,
            object_detections=[a for a in annotations if isinstance(a, ObjectDetection)],
            classifications=[a for a in annotations if isinstance(a, Classification)],
            instance_segmentations=[a for a in annotations if isinstance(a, InstanceSegmentation)],
            keypoints=[a for a in annotations if isinstance(a, KeypointDetection)],
        )

    def frame(self) -> FrameRef:
        rng = self.rng
        return FrameRef(
            rng.randrange(1, 2_000_000), rng.randbytes(16), rng.randrange(20_000, 900_000)
        )

    def metadata(self) -> dict[str, str | float | bool]:
        rng, keys = self.rng, self.domain.metadata
        makers: dict[str, Callable[[], str | float | bool]] = {
            "text": lambda: f"{rng.choice('ABCDEFGP')}{rng.randrange(1, 30)}",
            "int": lambda: rng.randrange(1, 400),
            "real": lambda: round(rng.uniform(0, 120), rng.choice((1, 2))),
            "bool": lambda: rng.random() < 0.5,
            "shift": lambda: rng.choice(("early", "late", "night")),
            "model": lambda: f"yolov8n-640/{rng.randrange(1, 20)}",
        }
        chosen = [pair for pair in keys if rng.random() < 0.7]
        return {key: makers[kind]() for key, kind in chosen}

    def confidence(self) -> float:
        return _rounded(self.rng.betavariate(5, 2), self.confidence_decimals)

    def object_count(self) -> int:
        low, high = self.rng.choices(
            ((0, 0), (1, 3), (4, 8), (9, 30), (31, 100)), weights=(10, 40, 35, 12, 3)
        )[0]
        return self.rng.randint(low, high)

    def box(self) -> tuple[str, float, float, float, float, float]:
        width, height = self.number(6, self.width / 3), self.number(6, self.height / 2)
        x, y = self.number(width / 2, self.width), self.number(height / 2, self.height)
        return self.rng.choice(self.domain.classes), x, y, width, height, self.confidence()

    def detection(self) -> ObjectDetection:
        return ObjectDetection(*self.box())

    def detections(self) -> list[ObjectDetection]:
        return [self.detection() for _ in range(self.object_count())]

    def classifications(self) -> list[Classification]:
        names = self.rng.sample(list(self.domain.classes), self.rng.randint(1, 3))
        return [Classification(name, self.confidence()) for name in names]

    def segmentations(self) -> list[InstanceSegmentation]:
        return [
            InstanceSegmentation(
                *self.box(),
                [
                    (self.number(0, self.width), self.number(0, self.height))
                    for _ in range(self.rng.randint(3, 24))
                ],
            )
            for _ in range(min(self.object_count(), 12))
        ]

    def keypoints(self) -> list[KeypointDetection]:
        return [
            KeypointDetection(
                *self.box(),
                [
                    Keypoint(i, self.number(0, self.width), self.number(0, self.height))
                    for i in range(17)
                    if self.rng.random() < 0.8
                ],
            )
            for _ in range(min(self.object_count(), 8))
        ]


def _rounded(value: float, decimals: int | None) -> float:
    if decimals is not None:
        return round(value, decimals)
    float32: float = _FLOAT32.unpack(_FLOAT32.pack(value))[0]
    return float32


def _external_id(rng: random.Random) -> str:
    return rng.choice(
        (
            f"lot-{rng.randrange(100_000):05}-{rng.randrange(10_000):04}",
            f"{rng.randrange(10**12):012}",
            f"order-{rng.randrange(10**6)}",
            f"SN{rng.randrange(10**8):08}",
            f"gate-{rng.randrange(10**6):06}",
        )
    )


def train(samples: Sequence[bytes], trials: Sequence[bytes]) -> zstandard.ZstdCompressionDict:
    """Train the dictionary.

    Args:
        samples: Payloads to train on.
        trials: Other payloads. How good a dictionary becomes jumps about with the size of the
            segments that the trainer cuts, so several are tried, and the one that shrinks these
            most is taken. Each counts alike, so that crowded frames do not outvote the others.
    """

    def remainder(candidate: zstandard.ZstdCompressionDict) -> float:
        sizes = compressed_sizes(trials, candidate)
        return sum(size / len(trial) for size, trial in zip(sizes, trials, strict=True))

    candidates = (
        zstandard.train_dictionary(
            DICTIONARY_SIZE, list(samples), k=k, d=6, level=LEVEL, dict_id=DICTIONARY_ID
        )
        for k in SEGMENT_SIZES
    )
    return min(candidates, key=remainder)


def compressed_sizes(
    payloads: Iterable[bytes], dictionary: zstandard.ZstdCompressionDict | None
) -> list[int]:
    """Return the size of each payload compressed alone, as the ring does it.

    A frame has no magic number, no size, no checksum and no dictionary id; the record knows.
    """
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        # Without these two zstd would choose the parameters for long inputs.
        source_size=500,
        dict_size=DICTIONARY_SIZE if dictionary else 0,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)
    return [len(compressor.compress(payload)) for payload in payloads]


def _encoded(seed: int, count: int, domains: Sequence[Domain]) -> list[bytes]:
    return [encode(event) for event in sample_events(seed, count, domains=domains)]


def _report(name: str, payloads: Sequence[bytes], trained: zstandard.ZstdCompressionDict) -> None:
    raw, sizes = sum(map(len, payloads)), compressed_sizes(payloads, trained)
    print(
        f"{name:<44} {raw / len(payloads):7.1f} {sum(sizes) / len(payloads):7.1f} "
        f"{statistics.median(sizes):7.1f} {raw / sum(sizes):7.2f} "
        f"{raw / sum(compressed_sizes(payloads, None)):8.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the zstd dictionary of the library.")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=40_000, help="default: %(default)s")
    arguments = parser.parse_args()

    dictionary = train(_encoded(1, arguments.samples, DOMAINS), _encoded(2, 3_000, DOMAINS))
    arguments.output.write_bytes(dictionary.as_bytes())

    print(f"{arguments.output.name}: {len(dictionary)} bytes, id {dictionary.dict_id():#x}")
    print(
        f"{'bytes per event at level ' + str(LEVEL):<44} {'raw':>7} {'mean':>7} {'median':>7} "
        f"{'ratio':>7} {'without':>8}"
    )
    for words, domains in (("known words", DOMAINS), ("unknown words", UNSEEN_DOMAINS)):
        _report(f"mixed events, {words}", _encoded(4, 4_000, domains), dictionary)
        for style, decimals in (("float32", None), ("0.1 px", 1), ("whole px", 0)):
            rng = random.Random(5)
            events = (typical_event(rng, rng.choice(domains), decimals) for _ in range(2_000))
            _report(f"typical event, {style}, {words}", [encode(e) for e in events], dictionary)


if __name__ == "__main__":
    main()
