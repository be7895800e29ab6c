"""What a chaos run was to be, and what came out of it."""

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.checker import Violation


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    seconds: float = 180.0
    seed: int = 1
    contexts: int = 200
    rate: float = 100.0


@dataclass(slots=True)
class Verdict:
    """What came out."""

    plan: Plan
    confirmed: int = 0
    given_up: int = 0
    turns: int = 0
    replies: int = 0
    repeated_replies: int = 0
    drained_in: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    diary: list[str] = field(default_factory=list)
    hung: str = ""
    """What did not come to an end, with what is known of it."""
    unasked_ends: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every promise held."""
        return not (self.hung or self.unasked_ends or self.violations)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items()))
        kinds = Counter(str(violation.kind) for violation in self.violations)
        lines = [
            f"seed {self.plan.seed}: {self.confirmed} confirmed and {self.given_up} given up, {self.turns} turns in "
            f"{self.plan.contexts} contexts, {self.replies} replies ({self.repeated_replies} of them repeated)",
            f"faults: {faults or 'none'}; drained in {self.drained_in:.1f} s after the last",
            *([f"HUNG: {self.hung}"] if self.hung else []),
            *self.unasked_ends,
            *(str(violation) for violation in self.violations[:20]),
            *([f"violations: {dict(kinds)}"] if kinds else []),
            "every promise held" if self.holds else "VIOLATED",
        ]
        return "\n".join(lines)
