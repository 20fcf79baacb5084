"""The device's clocks: one since boot that is right, and one on the wall that may be wrong."""

from __future__ import annotations

from simulation.world import DAY_S, HOUR_S, MINUTE_S, S, World
from vevents._ffi import Moment, set_clock

KINDS = ("battery", "battery", "since 1970", "where it stopped")


class Clock:
    """The clocks that the log and the flusher of the device see.

    Args:
        world: True time.

    Attributes:
        kind: What the wall clock shows after a boot.
        boot: Tag of the boot.
        error_ns: How far the wall clock is ahead of the truth.
        synced: Whether it follows a reference.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice("clock")
        self.kind = self._dice.choice(KINDS)
        self.boot = 0
        self.error_ns = 0
        self.synced = False
        self._booted_ns = world.now_ns
        world.on_time = self.stamp

    @property
    def wall_s(self) -> float:
        return self.wall_ns / S

    @property
    def wall_ns(self) -> int:
        return self._world.now_ns + self.error_ns

    @property
    def since_boot_s(self) -> float:
        return (self._world.now_ns - self._booted_ns) / S

    def stamp(self) -> None:
        """Show the log what the clocks say."""
        set_clock(
            Moment(self.wall_ns, self._world.now_ns - self._booted_ns, self.boot, self.synced)
        )

    def start(self, stopped_wall_ns: int) -> None:
        """Begin a boot, with the time as far as the device can know it.

        Args:
            stopped_wall_ns: What the wall clock showed last.
        """
        self.boot += 1
        self._booted_ns = self._world.now_ns
        self.synced = False
        if self.kind == "since 1970":
            self.error_ns = -self._world.now_ns + 10 * S
        elif self.kind == "where it stopped":
            self.error_ns = stopped_wall_ns - self._world.now_ns
        else:
            self.error_ns = self._dice.randrange(-S, S)
        self.stamp()
        self._plan_sync(self.boot)
        if self._dice.random() < 0.05:
            self._world.after(self._dice.uniform(0, DAY_S), lambda boot=self.boot: self._jump(boot))

    def set_right(self) -> None:
        """Follow a reference from now on."""
        self.error_ns, self.synced = self._dice.randrange(-S // 100, S // 100), True
        self.stamp()
        self._world.note("clock: follows the reference")

    def _plan_sync(self, boot: int) -> None:
        chance = self._dice.random()
        if chance < 0.2:
            return  # never in this boot
        wait_s = (
            self._dice.uniform(5, 10 * MINUTE_S)
            if chance < 0.8
            else self._dice.uniform(HOUR_S, 3 * DAY_S)
        )

        def sync() -> None:
            if self.boot == boot:
                self.set_right()

        self._world.after(wait_s, sync)

    def _jump(self, boot: int) -> None:
        """Somebody sets the clock by hand, and wrongly."""
        if self.boot != boot or self.synced:
            return
        # No system takes a time before 1970.
        self.error_ns += max(int(self._dice.uniform(-8, 8) * HOUR_S * S), -self.wall_ns)
        self.stamp()
        self._world.note(f"clock: set by hand, now wrong by {self.error_ns / S:.0f} s")
