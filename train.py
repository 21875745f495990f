"""Train DELF, local features learned for an image collection: the command ``minia train``, from a checkout.

    python train.py                                     on the simulated survey
    python train.py experiment=gz2 data.root=PATH       the original's recipe on Galaxy Zoo 2
    python train.py data=folder data.dir=PATH           your own images, one folder a class

All keys are in conf/train/.
"""

import sys

from minia.__main__ import main

if __name__ == "__main__":
    sys.exit(main("train"))
