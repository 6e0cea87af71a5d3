"""Compression room: attention heads, feed-forward columns and whole layers removed for real.

In rounds: what matters least goes, the rest is fine-tuned. The network that is left is a smaller one with smaller
matrices, on any runtime.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from app.compression.importance import (
    Costs,
    LayerImportance,
    LayerUnits,
    drop_layers,
    measure_importance,
    shrink,
    whole_shape,
)
from app.compression.step import Bench, KeptLayer
from app.compression.unit_times import find_costs
from app.config import InputError
from app.encoder.parts import parts_of

SEARCHES = 7  # halvings of the interval in which the part of the operations for a latency lies


def check_removed_layers(count: int, *, of: int) -> None:
    """Raises InputError if no layer would be left."""
    if count >= of:
        raise InputError(
            f"compression.prune_structured.removed_layers must be below {of} (the layers there are), received {count}"
        )


class PruneStructured:
    """Down to a part of the encoder's operations or of their time, or to a latency on this machine."""

    def run(self, bench: Bench) -> None:
        config = bench.config.prune_structured
        for number in range(1, config.rounds + 1):
            bench.once(f"cut_{number}", partial(self._cut, bench, number))
            last = number == config.rounds
            epochs = config.last_epochs if last else config.epochs
            if epochs:
                bench.once(f"train_{number}", partial(bench.train, part=f"train_{number}", epochs=epochs))

    def _cut(self, bench: Bench, number: int, tagger: Any) -> Any:
        config, model = bench.config.prune_structured, tagger.backbone.model
        importances = measure_importance(
            model.transformer_layers,
            bench.batches(tagger, config.importance_steps),
            lambda batch: bench.loss(tagger, batch),
        )
        layers = whole_shape(importances)
        costs = self._costs(bench, tagger, layers)
        whole = bench.remember("operations", lambda: costs.total(layers))
        if number == 1:
            layers = self._drop(layers, importances, config.removed_layers)
        before = bench.remember("operations_of_layers", lambda: costs.total(layers))
        target = bench.remember("fraction", lambda: self._fraction(bench, tagger, layers, importances, costs, whole))
        # Each round takes the same part of what is left, from the layers that stay to the target.
        budget = whole * target * (before / (whole * target)) ** (1 - number / config.rounds)
        layers = shrink(layers, importances, costs, budget=budget)
        heads, columns = [len(layer.heads) for layer in layers], [len(layer.columns) for layer in layers]
        bench.say(
            f"prune_structured: {costs.total(layers) / whole:.3f} of the {costs.unit} in {len(layers)} layers, "
            f"heads {heads}, columns {columns}"
        )
        return bench.cut_layers(tagger, _kept(layers))

    def _costs(self, bench: Bench, tagger: Any, layers: list[LayerUnits]) -> Costs:
        """What heads and columns cost; measured once, before anything goes."""
        model = tagger.backbone.model
        if bench.config.prune_structured.costs == "operations":
            attention = parts_of(model.transformer_layers[0]).attention_parts
            length = bench.config.latency_length
            return Costs.of(width=model.hidden_dim, head_dim=attention.size, length=length)

        def measure(networks: Sequence[Sequence[LayerUnits]]) -> list[float]:
            return bench.int8_ms([bench.cut_layers(tagger, _kept(units)) for units in networks])

        found = cache(lambda: find_costs(layers, measure))
        head = bench.remember("head_ms", lambda: found().head)
        column = bench.remember("column_ms", lambda: found().column)
        layer = bench.remember("layer_ms", lambda: found().layer)
        if found.cache_info().misses:  # else an earlier round has said it
            bench.say(
                f"prune_structured: in an int8 file a head takes {head:.4f} ms, as long as {head / column:.0f} "
                f"columns, and a layer beside them {layer:.4f} ms ({bench.config.latency_length} pieces)"
            )
        return Costs(head=head, column=column, layer=layer, unit="time")

    def _drop(self, layers: list[LayerUnits], importances: list[LayerImportance], count: int) -> list[LayerUnits]:
        check_removed_layers(count, of=len(layers))
        return drop_layers(layers, importances, count)

    def _fraction(
        self,
        bench: Bench,
        tagger: Any,
        layers: list[LayerUnits],
        importances: list[LayerImportance],
        costs: Costs,
        whole: float,
    ) -> float:
        """The part of the operations, or of their time, to go down to, of which the network is known to be capable."""
        smallest = costs.total(shrink(layers, importances, costs, budget=0.0)) / whole
        config = bench.config.prune_structured
        if not config.latency_ms:
            if config.flops_fraction < smallest:
                columns = len(shrink(layers, importances, costs, budget=0.0)[0].columns)
                raise InputError(
                    f"compression.prune_structured.flops_fraction={config.flops_fraction:g} cannot be reached: with "
                    f"one layer, one head and {columns} columns, {smallest:.4f} of the {costs.unit} is left"
                )
            return min(config.flops_fraction, costs.total(layers) / whole)

        def latency(fraction: float) -> float:
            kept = shrink(layers, importances, costs, budget=fraction * whole)
            return bench.latency_ms(bench.cut_layers(tagger, _kept(kept)))

        low, high = smallest, costs.total(layers) / whole
        fastest = latency(low)
        if fastest > config.latency_ms:
            raise InputError(
                f"compression.prune_structured.latency_ms={config.latency_ms:g} cannot be reached on this machine: the "
                f"smallest network, with {smallest:.4f} of the {costs.unit}, takes {fastest:.2f} ms for "
                f"{bench.config.latency_length} pieces"
            )
        if latency(high) <= config.latency_ms:
            return high
        for _ in range(SEARCHES):
            middle = (low + high) / 2
            low, high = (middle, high) if latency(middle) <= config.latency_ms else (low, middle)
        return low


def _kept(layers: Sequence[LayerUnits]) -> list[KeptLayer]:
    return [(layer.number, layer.heads, layer.columns) for layer in layers]
