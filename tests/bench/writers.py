#!/usr/bin/env python3
"""Points a second that the writers of other trackers accept: `writers.py tensorboard|mlflow POINTS`.

Runs in the Python environment of the test tools, which has both packages. Prints one number.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

#: Number of series; as in `ingest rate`.
SERIES = 150
#: MLflow's maximum of metrics in one request.
BATCH = 1000


def value(step, series):
    return 2.0 / (1.0 + step * 1e-4) + (step * 2654435761 ^ series) % 1000 * 1e-6


def tensorboard(points, folder):
    """Writes with TensorBoard's own class, until the file is flushed and closed."""
    from tensorboard.summary import Writer

    begin = time.perf_counter()
    writer = Writer(str(folder))
    for index in range(points):
        step, series = divmod(index, SERIES)
        writer.add_scalar(f"points/{series:03}", value(step, series), step)
    writer.close()
    return points / (time.perf_counter() - begin)


def mlflow(points, folder):
    """Sends batches to an MLflow server that stores them in SQLite."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [pathlib.Path(sys.executable).with_name("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    search = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": search, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "GIT_PYTHON_REFRESH": "quiet"}
    os.environ.update(environment)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True) as server:
        try:
            wait_for(uri)
            from mlflow import MlflowClient
            from mlflow.entities import Metric

            client = MlflowClient(uri)
            run = client.create_run(client.create_experiment("points")).info.run_id
            batches = []
            for begin in range(0, points, BATCH):
                pairs = (divmod(index, SERIES) for index in range(begin, min(points, begin + BATCH)))
                batches.append([Metric(f"points/{series:03}", value(step, series), 1_795_000_000_000 + step, step) for step, series in pairs])
            begin = time.perf_counter()
            for batch in batches:
                client.log_batch(run, metrics=batch)
            return points / (time.perf_counter() - begin)
        finally:
            os.killpg(server.pid, 15)


def wait_for(uri):
    end = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{uri}/health").close()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                sys.exit(f"bench: error: the MLflow server at {uri} did not answer within 90 s")
            time.sleep(0.2)


def main():
    way, points = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        print({"tensorboard": tensorboard, "mlflow": mlflow}[way](points, pathlib.Path(folder)))


if __name__ == "__main__":
    main()
