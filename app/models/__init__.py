"""Models room: backbones from any source, heads, and the tagger assembled from them."""
