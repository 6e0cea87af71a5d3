"""Compression room: weights of small magnitude become 0 while the network is trained (Zhu & Gupta 2017), by tfmot.

Every transformer layer, and the word-piece embedding, is called through a pruning wrapper on the same weights. Between
steps the optimizer fills zeros again and the next call masks them; `settle` masks them for good.
"""

import math
from functools import partial
from typing import Any

from app.compression.step import Bench, attention_kernels, feed_forward_kernels
from app.compression.tfmot import tfmot
from app.encoder.parts import is_transformer_layer
from app.one_keras import keras

FEWEST_UPDATES = 10  # of the masks while sparsity rises, in a training shorter than the frequency is meant for


class PruneMagnitude:
    """Sparsity rises over the first half of the epochs; the rest is trained under the last masks."""

    def run(self, bench: Bench) -> None:
        bench.once("prune", partial(self._prune, bench))

    def _prune(self, bench: Bench, tagger: Any) -> Any:
        config = bench.config.prune_magnitude
        epochs = config.epochs
        total = bench.passes(tagger, epochs)
        frequency = min(config.update_every_steps, max(1, total // 2 // FEWEST_UPDATES))
        last_update = frequency * max(2, total // 2 // frequency)
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=config.sparsity,
            begin_step=frequency,
            end_step=last_update,
            frequency=frequency,
        )
        wrappers: list[Any] = []

        def prunable(layer: keras.layers.Layer) -> keras.layers.Layer:
            weights = self._weights(layer, bench)
            if not weights:
                return layer
            layer.get_prunable_weights = lambda: weights
            wrappers.append(
                tfmot.sparsity.keras.prune_low_magnitude(
                    layer,
                    pruning_schedule=schedule,
                    # Its own arithmetic, weights times masks, is on the weights as they are stored; the layer keeps its
                    # precision. In mixed precision tfmot would read masks, and weights it writes back, in 16 bits.
                    dtype="float32",
                    autocast=False,
                    **({"sparsity_m_by_n": (2, 4)} if config.sparsity_2_by_4 else {}),
                )
            )
            return wrappers[-1]

        def mask() -> None:
            for wrapper in wrappers:
                for weight, zeros, _ in wrapper.pruning_vars:
                    weight.assign(weight * zeros)

        view = bench.with_layers(tagger, prunable)
        return bench.train(
            tagger,
            part="prune",
            epochs=epochs,
            view=view,
            callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
            settle=mask,
            first_kept_epoch=min(epochs, math.ceil(epochs * last_update / total)),
        )

    def _weights(self, layer: Any, bench: Bench) -> list[Any]:
        """What is pruned of a layer; tfmot's 2:4 takes matrices only, and attention kernels have three axes."""
        config = bench.config.prune_magnitude
        if is_transformer_layer(layer):
            return [*([] if config.sparsity_2_by_4 else attention_kernels(layer)), *feed_forward_kernels(layer)]
        return [layer.embeddings] if config.embeddings and not config.sparsity_2_by_4 else []
