"""Data room: from corpora and raw text to sentences, word pieces, packed rows and tf.data."""
