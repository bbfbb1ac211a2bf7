"""Results of the benchmarks as tables for people."""


def tables(result: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    """What `bench_pretraining` gave, as (title, columns, rows) of text for people."""
    made = []

    def add(title: str, rows: list[dict]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        made.append(
            (title, [c.replace("_", " ") for c in columns], [[_text(row.get(c)) for c in columns] for row in rows])
        )

    def named(rows: dict[str, dict]) -> list[dict]:
        return [{"": name, **row} for name, row in rows.items()]

    if part := result.get("ladder"):
        add("Speed ladder", part)
    if part := result.get("ceiling"):
        add(f"Ceiling (goal {part['goal']:.2f})", [
            *named({name: {"images_per_second": row} for name, row in part["images_per_second"].items()}),
            {"": "step / P alone", "images_per_second": part["step_over_ceiling"]},
        ])  # fmt: skip
    if part := result.get("roofline"):
        add("Roofline", [{"": name.replace("_", " "), "value": value} for name, value in part.items()])
    if part := result.get("locations"):
        add(f"All {part['masked']} hidden locations", named(part["rows"]))
    for name in ("growth", "processes"):
        if part := result.get(name):
            add(name.capitalize(), part)
    if part := result.get("input"):
        add(f"Reading files; enough: {part['fewest_that_keep_up_with_the_step']}", named(part["rows"]))
    return made


def _text(value) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
