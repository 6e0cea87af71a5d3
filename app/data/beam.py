"""Data room: the one place Apache Beam comes from.

Its import warns about cloud packages that are not installed here and that local files do not need.
"""

import logging

_level = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    import apache_beam as beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
finally:
    logging.disable(_level)

__all__ = ["CompressionTypes", "FileSystems", "beam"]
