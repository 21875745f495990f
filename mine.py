"""Discover the structures that recur across an image collection: the command ``minia mine``, from a checkout.

    python mine.py                                      the simulated survey
    python mine.py images=folder images.dir=PATH        your own images
    python mine.py -m vocabulary.size=250,500,1000      a sweep

All keys are in conf/.
"""

import sys

from minia.__main__ import main

if __name__ == "__main__":
    sys.exit(main("mine"))
