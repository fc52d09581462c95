"""The figures of a gateway, as its monitoring reads them."""

import asyncio
import re
import urllib.request

LINE = re.compile(r"^(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class Figures:
    """One reading of `/metrics`."""

    def __init__(self, text: str):
        self.series: dict[tuple, float] = {}
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            found = LINE.match(line)
            assert found, f"no line of a metric: {line}"
            labels = tuple(sorted(LABEL.findall(found["labels"] or "")))
            self.series[found["name"], labels] = float(found["value"])

    def sum(self, name: str, **labels) -> float:
        """All series of a name with these labels, added."""
        wanted = set(labels.items())
        return sum(value for (known, said), value in self.series.items() if known == name and wanted <= set(said))

    def by(self, label: str, name: str, **labels) -> dict[str, float]:
        """The series of a name with these labels that are not 0, by another label."""
        wanted = set(labels.items())
        found = {}
        for (known, said), value in self.series.items():
            if known == name and wanted <= set(said) and value:
                found[dict(said)[label]] = found.get(dict(said)[label], 0) + value
        return found


def read(gateway) -> Figures:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ops}/metrics", timeout=10) as answer:
        return Figures(answer.read().decode())


async def figures(gateway) -> Figures:
    return await asyncio.to_thread(read, gateway)
