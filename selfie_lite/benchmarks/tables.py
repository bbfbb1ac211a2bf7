"""Results of the benchmarks as tables for people."""

from typing import Any


def tables(result: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """What `bench_pretraining` gave, as (title, columns, rows) of text for people."""
    made = []
    for title, part in result.items():
        if isinstance(part, list):
            rows = part
        elif isinstance(part, dict) and title not in ("environment", "config"):
            rows = [{"": name, **row} for name, row in part.get("rows", {}).items()]
            rows += [{"": name.replace("_", " "), "value": value} for name, value in part.items() if name != "rows"]
        else:
            continue
        columns = list(dict.fromkeys(name for row in rows for name in row))
        texts = [[_text(row.get(name)) for name in columns] for row in rows]
        made.append((title.capitalize(), [name.replace("_", " ") for name in columns], texts))
    return made


def _text(value: Any) -> str:
    if isinstance(value, dict):
        if "median" not in value:
            return "; ".join(f"{name} {_text(one)}" for name, one in value.items())
        return f"{value['median']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
