"""A real Prometheus, Debian's, that scrapes a server every second."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.monitoring.prometheus import Prometheus
from deploy.monitoring.rules import FILE
from loadtests.servers import free_port
from tests.shared.debian import tool
from tests.shared.servers import eventually


@contextmanager
def scraping(url: str, folder: Path) -> Iterator[Prometheus]:
    """It scrapes the server there and follows the rules; without Prometheus the test is skipped."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{FILE}]\n"
        "scrape_configs:\n"
        "  - job_name: galton\n"
        f"    static_configs: [{{targets: ['{url.removeprefix('http://')}']}}]\n"
    )
    command = [
        tool("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with Prometheus(f"http://127.0.0.1:{port}") as started:
            assert eventually(started.scrapes), (folder / "log").read_text()
            yield started
    finally:
        process.terminate()
        process.wait()
