"""Tasks room: linear-chain conditional random field over the words of a sentence, with IOB2's rules built in.

Lafferty et al. 2001. Viterbi is TensorFlow Addons', in the one place it is used. The likelihood is our own: Addons'
hides its scan behind a `tf.cond`, whose gradient XLA cannot compile, so no TPU could train it.
"""

from collections.abc import Callable

import tensorflow as tf
import tensorflow_addons as tfa

from app.tasks.tagging.chain import FORBIDDEN


def compute_chain_loss(
    logits: tf.Tensor, labels: tf.Tensor, boundaries: tf.Tensor, transitions: tf.Tensor
) -> tf.Tensor:
    """Negative log-likelihood of all chains of a batch of packed rows, summed.

    The first pieces of words and the sentence boundaries of a row form one chain. A boundary is known to be `O`, which
    cuts the chain: the sentences left and right of it are independent, and the boundary stands for start and end.

    Args:
        logits: float32 [batch, length, labels].
        labels: int32 [batch, length], negative where nothing is scored.
        boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
        transitions: float32 [labels, labels], constraints included; label 0 is `O`.
    """
    in_chain = boundaries | (labels >= 0)
    order, lengths = _chain_order(in_chain)
    chain_logits = tf.gather(_with_boundaries(logits, boundaries), order, batch_dims=1)
    chain_labels = tf.gather(tf.maximum(labels, 0), order, batch_dims=1)
    return -tf.reduce_sum(compute_log_likelihood(chain_logits, chain_labels, lengths, transitions))


def compute_log_likelihood(
    emissions: tf.Tensor, labels: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor
) -> tf.Tensor:
    """Log-probability of each chain's labels: float32 [chains], 0 for a chain without words.

    Args:
        emissions: float32 [chains, words, labels].
        labels: int32 [chains, words].
        lengths: int32 [chains].
        transitions: float32 [labels, labels], from row to column.
    """
    return compute_chain_scores(emissions, labels, lengths, transitions) - compute_log_norm(
        emissions, lengths, transitions
    )


def compute_chain_scores(
    emissions: tf.Tensor, labels: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor
) -> tf.Tensor:
    """Sum of the emissions and transitions of the given labels: float32 [chains]. Arguments as above."""
    within = tf.sequence_mask(lengths, tf.shape(emissions)[1], dtype=tf.float32)
    chosen = tf.one_hot(labels, tf.shape(emissions)[2]) * within[:, :, tf.newaxis]  # [chains, words, labels]
    moves = tf.matmul(chosen[:, :-1], chosen[:, 1:], transpose_a=True)  # how often each is taken, [chains, from, to]
    return tf.reduce_sum(chosen * emissions, [1, 2]) + tf.reduce_sum(moves * transitions, [1, 2])


@tf.custom_gradient
def compute_log_norm(
    emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None, tf.Tensor]]]:
    """Log of the sum of exp(score) over all label sequences: float32 [chains]. Arguments as above.

    Its gradients are the posterior probabilities of labels and of moves, taken from the messages of both directions, so
    that nothing is differentiated through the scan; they have no gradients of their own.
    """
    forward, backward, log_norm = _pass_messages(emissions, lengths, transitions)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, tf.Tensor]:
        posterior = _posterior(emissions, forward, backward, lengths)
        pairs = forward[:, :-1, :, tf.newaxis] + transitions + backward[:, 1:, tf.newaxis, :]
        shape = tf.shape(pairs)  # [chains, words - 1, from, to]
        moves = tf.reshape(tf.nn.softmax(tf.reshape(pairs, [shape[0], shape[1], -1])), shape)
        counted = tf.sequence_mask(lengths - 1, shape[1], dtype=tf.float32) * upstream[:, tf.newaxis]
        by_transitions = tf.einsum("btij,bt->ij", moves, counted)
        return posterior * upstream[:, tf.newaxis, tf.newaxis], None, by_transitions

    return log_norm, gradient


def _pass_messages(
    emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The forward-backward algorithm in log space, both directions in one scan of a length known beforehand.

    Returns:
        (forward, backward, log_norm): messages float32 [chains, words, labels], the emission of their own word
        included, each up to a constant of its word that keeps numbers small; log_norm float32 [chains].
    """
    words = tf.shape(emissions)[1]
    positions = tf.range(words)[:, tf.newaxis]  # [words, 1]
    by_word = tf.transpose(emissions, [1, 0, 2])
    both = tf.stack([by_word, tf.reverse(by_word, [0])], axis=1)  # [words, directions, chains, labels]
    # A message begins anew at the first word, and from the other side at the last one.
    goes_on = tf.stack([tf.repeat(positions > 0, tf.shape(lengths)[0], 1), positions[::-1] + 1 < lengths], axis=1)
    goes_on = tf.cast(goes_on, tf.float32)[..., tf.newaxis]  # [words, directions, chains, 1]
    moves = tf.stack([transitions, tf.transpose(transitions)])[:, tf.newaxis]  # [directions, 1, labels, labels]

    def step(before: tuple[tf.Tensor, tf.Tensor], word: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        (message, taken), (emission, on) = before, word
        scores = message[..., tf.newaxis] + moves
        largest = tf.reduce_max(scores, axis=2, keepdims=True)
        arriving = tf.math.log(tf.reduce_sum(tf.exp(scores - largest), axis=2)) + tf.squeeze(largest, 2)
        message = on * arriving + emission
        constant = tf.reduce_max(message, axis=-1, keepdims=True)
        return message - constant, on * taken + constant

    start = (tf.zeros_like(both[0]), tf.zeros_like(both[0, :, :, :1]))
    messages, taken = tf.scan(step, (both, goes_on), start)
    log_norm = tf.reduce_logsumexp(messages[-1, 1], axis=-1) + taken[-1, 1, :, 0]
    forward = tf.transpose(messages[:, 0], [1, 0, 2])
    backward = tf.transpose(tf.reverse(messages[:, 1], [0]), [1, 0, 2])
    return forward, backward, tf.where(lengths > 0, log_norm, 0.0)


def _posterior(emissions: tf.Tensor, forward: tf.Tensor, backward: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Probability of each label at each word, 0 after a chain's end: float32 [chains, words, labels]."""
    within = tf.sequence_mask(lengths, tf.shape(emissions)[1], dtype=tf.float32)
    return tf.nn.softmax(forward + backward - emissions) * within[..., tf.newaxis]


def _with_boundaries(logits: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
    """Logits that know the boundaries to be `O`."""
    only_outside = tf.one_hot(0, tf.shape(logits)[-1], on_value=0.0, off_value=FORBIDDEN)
    return tf.where(boundaries[..., tf.newaxis], only_outside, logits)


def _chain_order(in_chain: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Positions [batch, length], those of the chain first and in their order; and lengths of the chains [batch]."""
    order = tf.argsort(tf.cast(~in_chain, tf.int32), axis=1, stable=True)
    return order, tf.reduce_sum(tf.cast(in_chain, tf.int32), axis=1)


MESSAGES = 10  # words that a message travels in `infer_row_marginals`; what is further away changes nothing to speak of
_LEAST = 1e-20  # a chance that is nearly none stays above 0, so that no message is without any


def infer_row_marginals(
    logits: tf.Tensor, words: tf.Tensor, boundaries: tf.Tensor, transitions: tf.Tensor
) -> tf.Tensor:
    """Posterior probabilities of labels in packed rows, whose chains are those of `compute_chain_loss`.

    In few operations that every TFLite runtime has. Positions outside the chain are passed over. All rows are one
    chain, since a boundary cuts it in two. The messages of all places are computed at once, `MESSAGES` times, which is
    exact where a word is no further from a boundary, and very nearly so elsewhere; one place after the other would take
    longer than a layer.

    Args:
        logits: float32 [batch, length, labels].
        words: bool [batch, length], true at the first piece of each word of the chain.
        boundaries: bool [batch, length], true at `[CLS]` and `[SEP]`.
        transitions: float32 [labels, labels], constraints included.

    Returns:
        float32 [batch, length, labels]; only those at words mean anything.
    """
    shape = tf.shape(logits)
    count = logits.shape[-1]
    only_outside = tf.one_hot([[0]], count, on_value=0.0, off_value=FORBIDDEN)
    emissions = tf.reshape(tf.where(tf.expand_dims(boundaries, -1), only_outside, logits), [-1, count])
    in_chain = tf.reshape(boundaries | words, [-1])
    numbers, last = tf.range(tf.size(in_chain)), tf.size(in_chain) - 1
    in_chain |= tf.equal(numbers, 0) | tf.equal(numbers, last)  # no kernel takes a chain of fewer than two places
    places = tf.cast(tf.where(in_chain), tf.int32)
    chances = tf.gather_nd(emissions, places)  # [places, labels]
    chances = tf.maximum(tf.exp(chances - tf.reduce_max(chances, axis=-1, keepdims=True)), _LEAST)
    none = tf.cast(tf.minimum(tf.size(numbers), 0), tf.float32)  # 0, which no converter knows: see `pass_on`
    moves = tf.exp(tf.convert_to_tensor(transitions) + none)
    start = tf.ones_like(chances[:1])

    def normalize(messages: tf.Tensor) -> tf.Tensor:
        return messages / tf.reduce_sum(messages, axis=-1, keepdims=True)

    def pass_on(messages: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
        """[places, from] and [from, to] -> [places, to]; constants would be rounded in an int8 file."""
        return tf.maximum(tf.matmul(messages, by), _LEAST)

    forward, backward, back = normalize(chances), tf.ones_like(chances), tf.transpose(moves)
    for _ in range(MESSAGES):
        forward = normalize(tf.concat([start, pass_on(forward[:-1], moves)], axis=0) * chances)
        backward = normalize(tf.concat([pass_on((chances * backward)[1:], back), start], axis=0))
    found = normalize(tf.maximum(forward * backward, _LEAST))
    return tf.reshape(tf.scatter_nd(places, found, [tf.size(in_chain), count]), shape)


def compute_chain_divergence(
    teacher: tf.Tensor,
    student: tf.Tensor,
    words: tf.Tensor,
    boundaries: tf.Tensor,
    teacher_transitions: tf.Tensor,
    student_transitions: tf.Tensor,
) -> tf.Tensor:
    """Kullback-Leibler divergence of the student's distribution over tag sequences from the teacher's, summed.

    Chains as in `compute_chain_loss`. With s the score of a sequence y, Z its normalizer and E_T the teacher's mean,
    KL = log Z_S - log Z_T + E_T[s_T(y) - s_S(y)], and the mean needs only the teacher's marginals of words and of
    pairs of neighbours, which are the gradient of log Z_T. The gradient by the student's logits is the difference of
    the marginals (compare Wang et al. 2020, "Structure-Level Knowledge Distillation for Multilingual Sequence
    Labeling", posterior distillation).

    Args:
        teacher: logits float32 [batch, length, labels], already divided by the temperature; no gradient reaches them.
        student: likewise, with a gradient.
        words: bool [batch, length], true at the first piece of each word to compare.
        boundaries: bool [batch, length].
        teacher_transitions: float32 [labels, labels], constraints included.
        student_transitions: likewise.
    """
    order, lengths = _chain_order(boundaries | words)

    def scores_of(logits: tf.Tensor) -> tf.Tensor:
        return tf.gather(_with_boundaries(logits, boundaries), order, batch_dims=1)

    teacher_scores = tf.stop_gradient(scores_of(teacher))
    teacher_transitions = tf.stop_gradient(teacher_transitions)
    with tf.GradientTape() as tape:
        tape.watch([teacher_scores, teacher_transitions])
        teacher_norm = tf.reduce_sum(compute_log_norm(teacher_scores, lengths, teacher_transitions))
    found = tape.gradient(teacher_norm, [teacher_scores, teacher_transitions])
    marginals, pairs = (tf.stop_gradient(each) for each in found)
    student_scores = scores_of(student)
    student_norm = tf.reduce_sum(compute_log_norm(student_scores, lengths, student_transitions))
    gained = tf.reduce_sum(marginals * (teacher_scores - student_scores))
    gained += tf.reduce_sum(pairs * (teacher_transitions - student_transitions))
    return student_norm - tf.stop_gradient(teacher_norm) + gained


# Emissions [sentences, words, labels], lengths [sentences], transitions [labels, labels].
_SENTENCES = [
    tf.TensorSpec([None, None, None], tf.float32),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([None, None], tf.float32),
]


@tf.function(input_signature=_SENTENCES, autograph=False)
def decode_tags(emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Most probable label ids by Viterbi: int32 [sentences, words], 0 after a sentence's end.

    Args:
        emissions: float32 [sentences, words, labels], start scores already added to the first word.
        lengths: int32 [sentences].
        transitions: float32 [labels, labels], constraints included.
    """
    tags, _ = tfa.text.crf_decode(emissions, transitions, lengths)
    return tags


@tf.function(input_signature=_SENTENCES, autograph=False)
def compute_marginals(emissions: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Posterior probability of each label at each word: float32 [sentences, words, labels], 0 after a sentence's end.

    Arguments as in `decode_tags`.
    """
    forward, backward, _ = _pass_messages(emissions, lengths, transitions)
    return _posterior(emissions, forward, backward, lengths)


@tf.function(
    input_signature=[_SENTENCES[0], tf.TensorSpec([None, None], tf.int32), *_SENTENCES[1:]], autograph=False
)
def score_tags(emissions: tf.Tensor, labels: tf.Tensor, lengths: tf.Tensor, transitions: tf.Tensor) -> tf.Tensor:
    """Log-probability of the given tags of each sentence: float32 [sentences]. `labels` int32 [sentences, words]."""
    return compute_log_likelihood(emissions, labels, lengths, transitions)
