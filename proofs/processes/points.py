"""The points at which everything may die, and what is required of each."""

from __future__ import annotations

from dataclasses import dataclass

AGENT, WORKER, SERVER = "the agent", "a worker", "the whole server"
WIRE, WAITING, TOLD = "the answer", "the answer, the agent waiting", "the answer, the agent told"
BEFORE, AFTER = "the store before its commit", "the store after its commit"

KILLED = "killed"
HEALTHY, ROTATED, ADOPTED, UNAVAILABLE = "healthy", "rotated", "adopted", "unavailable"


@dataclass(frozen=True)
class Point:
    """A point at which something dies.

    Attributes:
        name: P0 to P13.
        when: what has been done by then.
        minted: whether the successor is in the history.
        stored: whether it is in the store; None if that is not known.
        dies: what may die there; they take turns.
    """

    name: str
    when: str
    minted: bool = False
    stored: bool | None = False
    dies: tuple[str, ...] = (AGENT,)


POINTS = (
    Point("P0", "before read"),
    Point("P1", "decoded"),
    Point("P2", "preflight done"),
    Point("P3", "looked for a successor"),
    Point("P4", "before send"),
    Point("P5", "inserted, not committed", dies=(WORKER, SERVER)),
    Point("P6", "committed, nothing sent", minted=True, dies=(WORKER, SERVER)),
    Point("P7", "answer cut at byte n", minted=True, dies=(WIRE, WAITING, TOLD)),
    Point("P8", "answer received", minted=True),
    Point("P9", "verified", minted=True),
    Point("P10", "re-read before the write", minted=True),
    Point("P11", "write sent, answer lost", True, None, dies=(AGENT, BEFORE, AFTER)),
    Point("P12", "written, not read back", minted=True, stored=True),
    Point("P13", "read back, not reported", minted=True, stored=True),
)


@dataclass(frozen=True)
class Death:
    """One thing that dies at a point.

    Attributes:
        point: where.
        number: which one it is of those at this point.
        dies: what.
        bearer: whether the agent presents the token itself, and so sees no history.
    """

    point: Point
    number: int
    dies: str
    bearer: bool

    @classmethod
    def of(cls, point: Point, number: int, shift: int) -> Death:
        """Each thing that may die takes its turn, with either kind of agent; `shift` begins."""
        turn, index = divmod(number, len(point.dies))
        return cls(point, number, point.dies[index], bool((turn + index + shift) % 2))

    @property
    def is_survived(self) -> bool:
        """Whether the agent lives and can still end well."""
        return self.dies in (WORKER, WIRE)

    @property
    def first_word(self) -> str:
        """How the run that is struck has to end."""
        if self.is_survived:
            return self._found_again if self.point.minted else ROTATED
        return UNAVAILABLE if self.dies in (SERVER, BEFORE, AFTER) else KILLED

    @property
    def minted(self) -> bool:
        """Whether that run has to leave a successor in the history."""
        return self.point.minted or self.is_survived

    @property
    def stored(self) -> bool | None:
        """Whether it has to leave it in the store; None if it need not be known."""
        if self.dies in (BEFORE, AFTER):
            return self.dies == AFTER
        if self.point.stored is None:
            return None
        return self.point.stored or self.is_survived

    def next_word(self, *, stored: bool) -> str:
        """How the next run has to end, after a run that left this in the store."""
        if stored:
            return HEALTHY
        return self._found_again if self.minted else ROTATED

    @property
    def _found_again(self) -> str:
        """The history shows a session what it adopts; a bearer is answered the same again."""
        return ROTATED if self.bearer else ADOPTED

    def __str__(self) -> str:
        agent = "bearer" if self.bearer else "session"
        return f"{self.point.name} {self.number} ({self.dies} dies, by {agent})"
