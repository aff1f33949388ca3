"""What workers load for several tasks."""

from __future__ import annotations

from pipemill.pipelines.load_cascade import LoadCascade, LoadStep
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask


def test_a_task_on_the_cpu_stays_there_when_fewer_actors_share_the_gpu():
    shares = {"onnx": 0.0, "auto": 0.25}
    steps = [
        LoadStep(
            name=engine,
            prefix="",
            where=None,
            load=LoadTask(
                task="fill-mask", model=Model(path="m", num_gpus=gpus), columns=(), engine=engine
            ),
        )
        for engine, gpus in shares.items()
    ]
    fewer = LoadCascade(steps=tuple(steps), schema=b"").with_num_gpus(0.5)
    assert [load.model.num_gpus for load in fewer.loads] == [0.0, 0.5]
