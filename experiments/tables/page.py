"""Write the tables of README.md anew from results.csv; what is said around them is written by hand.

python experiments/tables/page.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from results import ALONE, DIAGNOSIS, HERE, INFECTION, LOBES, PAIRS, SEVERITY, WEIGHTED

from m2net.recipes.table import read_table

WHAT = {
    "lobes_unet": "U-Net alone",
    "lobes_unetplusplus": "UNet++ alone",
    "lobes_m2unet": "the paper's plain patches, lobes alone",
    "lobes_position_aware": "neighbouring slices and coordinates, whole slices, lobes alone",
    "infection_alone": "infection alone",
    "diagnosis_alone": "diagnosis alone, the paper's two levels without its decoder",
    "resnet50_max": "ResNet-50, from scratch, the largest of every feature over the patches",
    "instance_mil": "every patch is judged; the judgements are averaged",
    "embedding_mil": "the patches' features are averaged; the bag is judged",
    "gated_attention": "the same, gated attention",
    "transformer": "a transformer over the patches, gathered by gated attention",
    "classification_only": "the paper's two levels, without its decoder",
    "one_level": "lobes jointly, one level instead of two",
    "m2unet": "the paper's network, quarter width: lobes jointly, two levels",
    "joint_lobe_aware": "lobes jointly, instance -> lobe -> patient",
    "joint_lobe_aware_infection": "lobes and infection jointly, instance -> lobe -> patient",
    "joint_shares": "lobes and infection jointly, read off the infected share of each lobe",
    "joint_shares_apart": "the same; severity reads the maps and does not shape them",
    "all_tasks": "lobes, infection, diagnosis and severity jointly, two levels",
    "all_tasks_uncertainty": "the same, tasks weighed by uncertainty",
    "all_tasks_gradient_norm": "the same, tasks weighed to pull alike at the encoder",
}
"""Rows, those that learn one task alone first, and what each is."""
TOGETHER = ("m2unet", *WEIGHTED, "joint_lobe_aware", "joint_lobe_aware_infection", "joint_shares", "joint_shares_apart")
APART = {SEVERITY: "embedding_mil", LOBES: ALONE[LOBES]}
"""What ``one_level`` learns together, apart."""
NAMES = {SEVERITY: "AUC of severity", LOBES: "Dice of lobes", INFECTION: "F1 of infection", DIAGNOSIS: "AUC of diagnosis"}
FEWER = (100, 25, 5)
CLASSES = {"severity": "audit", "CAP": "audit of cap", "COVID-19": "audit of covid19", "non-pneumonia": "audit of non_pneumonia"}

Table = list[Sequence[str]]


class Figures:
    """results.csv as texts of cells."""

    def __init__(self, path: Path) -> None:
        """Read it."""
        self.lines = {(line["row"], line["lobes labelled"], line["figure"]): line for line in read_table(path)}

    def text(self, row: str, figure: str, labelled: int = 100, sign: str = "") -> str:
        """``0.582 (0.435 to 0.755)``, "" where the row does not have it; differences with their ``sign``: +."""
        line = self.lines.get((row, f"{labelled} %", figure))
        if line is None:
            return ""
        value, *bounds = (f"{float(line[name]):{sign}.3f}" for name in ("value", "low", "high") if line[name])
        return f"{value} ({' to '.join(bounds)})" if bounds else value

    def less(self, one: str, other: str, figure: str, labelled: int = 100) -> str:
        """What one row is above another."""
        return self.text(f"{one} minus {other}", figure, labelled, "+")

    def minutes(self, row: str) -> str:
        """What a row took on one core."""
        found = [line for (name, share, figure), line in self.lines.items() if (name, share) == (row, "100 %") and "minutes/" in figure]
        return f"{float(found[0]['value']):.0f}" if found else ""


def of_rows(found: Figures, title: str, columns: dict[str, str]) -> Table:
    """The rows that have a figure, with what they are, their figures and their minutes."""
    table: Table = [(title, "what it is", *columns.values(), "minutes")]
    for row, what in WHAT.items():
        cells = [found.text(row, figure) for figure in columns]
        if any(cells):
            table.append((f"`{row}`", what, *cells, found.minutes(row)))
    return table


def together(found: Figures) -> Table:
    """What learning tasks together brings to each."""
    table: Table = [("learning together, on the same draws of patients", *NAMES.values())]
    for row in TOGETHER:
        table.append((f"`{row}` minus each task alone", *(found.less(row, ALONE[figure], figure) for figure in NAMES)))
    cells = (found.less("one_level", APART[figure], figure) if figure in APART else "" for figure in NAMES)
    table.append((f"`one_level` minus {', '.join(f'`{row}`' for row in APART.values())}", *cells))
    other = WEIGHTED[0]
    for one in WEIGHTED[1:]:
        table.append((f"`{one}` minus `{other}`", *(found.less(one, other, figure) for figure in NAMES)))
    return table


def others(found: Figures) -> Table:
    """All other pairs of rows with all masks."""
    table: Table = [("what else brings what, on the same draws", "difference (95 % interval)")]
    for one, other, figure in PAIRS:
        alone = other == ALONE[figure] and one in TOGETHER
        apart = one == "one_level" and other == APART.get(figure)
        if not (alone or apart or one in WEIGHTED or "-" in one):
            table.append((f"{NAMES[figure]}: `{one}` minus `{other}`", found.less(one, other, figure)))
    return table


def fewer(found: Figures) -> Table:
    """The rows that were repeated with fewer lobe masks."""
    alone = ALONE[SEVERITY]
    names = ["m2unet" if share == 100 else f"m2unet-{share}" for share in FEWER]
    lobes = [name.replace("m2unet", ALONE[LOBES]) for name in names]
    shares = list(zip(names, lobes, FEWER, strict=True))
    return [
        ("with lobe masks of", "100 % of the studies", "25 %", "5 % (12 studies)"),
        ("`m2unet`: AUC of severity", *(found.text("m2unet", SEVERITY, share) for share in FEWER)),
        (f"minus `{alone}` (no mask at all: {found.text(alone, SEVERITY)})", *(found.less(n, alone, SEVERITY, s) for n, _, s in shares)),
        ("minus `m2unet` with all masks", *(found.less(n, "m2unet", SEVERITY, s) for n, _, s in shares)),
        ("`m2unet`: Dice of lobes", *(found.text("m2unet", LOBES, share) for share in FEWER)),
        (f"`{ALONE[LOBES]}`: Dice of lobes", *(found.text(ALONE[LOBES], LOBES, share) for share in FEWER)),
        ("difference", *(found.less(n, lobe, LOBES, s) for n, lobe, s in shares)),
    ]


def audit(found: Figures) -> Table:
    """What trivial facts tell of the labels."""
    n = max(int(line["n"]) for line in found.lines.values() if line["n"])
    table: Table = [(f"AUC, n = {n} patients", *CLASSES)]
    rows = [("trivial facts, severity" if name == "severity" else "trivial facts, diagnosis", of) for name, of in CLASSES.items()]
    families = [figure.split("/")[1] for row, _, figure in found.lines if row == rows[0][0] and figure.endswith(" alone")]
    for family in families:
        table.append((family.removesuffix(" alone"), *(found.text(row, f"{of}/{family}") for row, of in rows)))
    strongest = []
    for row, of in rows:
        figure = next((f for r, _, f in found.lines if r == row and f.startswith(f"{of}/strongest: ")), "")
        strongest.append(f"{figure.partition(': ')[2]}, {found.text(row, figure)}")
    return [*table, ("strongest single fact", *strongest)]


def tables(found: Figures) -> Iterator[Table]:
    """All of them."""
    yield of_rows(found, "severity", {"severity/auc_share": "share of the best AUC, above chance", SEVERITY: "AUC"})
    yield of_rows(found, "lobes", {LOBES: "Dice, mean of five"})
    diagnosis = {DIAGNOSIS: "diagnosis: AUC, mean of three", "diagnosis/accuracy": "accuracy of three"}
    yield of_rows(found, "infection and diagnosis", {INFECTION: "infection: pixel F1, all studies pooled"} | diagnosis)
    yield together(found)
    yield others(found)
    yield fewer(found)
    yield audit(found)


def written(page: str, table: Table) -> str:
    """The page with the table whose head begins as this one's in place of what stands there."""
    lines, head = page.split("\n"), f"| {table[0][0]} |"
    start = next(k for k, line in enumerate(lines) if line.startswith(head))
    end = next(k for k in range(start, len(lines)) if not lines[k].startswith("|"))
    made = [f"| {' | '.join(cells)} |" for cells in table]
    made.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join([*lines[:start], *made, *lines[end:]])


def main() -> None:
    page = (HERE / "README.md").read_text(encoding="utf-8")
    for table in tables(Figures(HERE / "results.csv")):
        page = written(page, table)
    (HERE / "README.md").write_text(page, encoding="utf-8")
    print(HERE / "README.md")


if __name__ == "__main__":
    main()
