"""Modes room: the network that pretraining trains: whole on each device, or one network shared out over several."""

import dataclasses
from collections.abc import Iterable

import tensorflow as tf
from tensorflow.experimental import dtensor

from app.config import TrainingConfig
from app.models.backbone import Backbone, make_bert_backbone, read_settings
from app.models.layout import check_cuts, layout_scope
from app.models.masked_lm import build_pretrainer
from app.one_keras import keras
from app.training.fine_tuner import SpecialIds
from app.training.masked_lm import Batch, MaskedLmTuner
from app.training.model_parallel import MeshBatches, MeshMaskedLmTuner, fetch, put


@dataclasses.dataclass(frozen=True)
class PretrainingNetwork:
    """A network of `build_pretrainer`.

    Attributes:
        backbone: inside the network.
        network: see `build_pretrainer`.
        depths: of its trainable variables, in its order.
        pairs: whether it answers pairs.
        mesh: the devices its weights are shared out over, or None.
    """

    backbone: Backbone
    network: keras.Model
    depths: list[int]
    pairs: bool
    mesh: dtensor.Mesh | None = None

    @classmethod
    def of(cls, backbone: Backbone, *, pairs: bool) -> "PretrainingNetwork":
        """On the backbone as it is; call in the strategy's scope."""
        network, depths = build_pretrainer(backbone, pairs=pairs)
        return cls(backbone, network, depths, pairs)

    def share_out(self, mesh: dtensor.Mesh) -> "PretrainingNetwork":
        """The same network and weights once more, on a mesh; whoever calls drops the one that is whole."""
        check_cuts(self.backbone.model, mesh.size)
        with layout_scope(mesh):
            model = make_bert_backbone(read_settings(self.backbone.model))
            shared = PretrainingNetwork.of(dataclasses.replace(self.backbone, model=model), pairs=self.pairs)
        for whole, parts in ((self.backbone.model, model), (self.network, shared.network)):
            for source, variable in zip(whole.variables, parts.variables, strict=True):
                put(variable, source.numpy())
        return dataclasses.replace(shared, mesh=mesh)

    def make_tuner(self, special: SpecialIds, config: TrainingConfig, *, seed: int) -> MaskedLmTuner:
        """What trains it; see `MaskedLmTuner`."""
        if self.mesh:
            return MeshMaskedLmTuner(self.network, self.mesh, special=special, config=config, seed=seed)
        return MaskedLmTuner(self.network, special=special, config=config, seed=seed)

    def to_devices(self, batches: tf.data.Dataset) -> Iterable[Batch]:
        """Batches as the network takes them outside training."""
        return MeshBatches(batches, self.mesh) if self.mesh else batches

    def whole_backbone(self) -> Backbone:
        """The backbone as one device holds it."""
        if not self.mesh:
            return self.backbone
        model = make_bert_backbone(read_settings(self.backbone.model))
        for variable, parts in zip(model.variables, self.backbone.model.variables, strict=True):
            variable.assign(fetch(parts))
        return dataclasses.replace(self.backbone, model=model)
