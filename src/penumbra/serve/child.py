"""One prediction in a process of its own, which ends when the server does, however that happens.

Left alone after its server was killed, it would go on in a folder in which the restarted server
predicts the same scan again. Its standard input is a pipe whose other end only the server holds.

    python -m penumbra.serve.child RUN SCAN OUT
"""

import os
import sys
import threading
from pathlib import Path

from penumbra.errors import PenumbraError, first_line


def _end_with_the_server() -> None:
    os.read(0, 1)  # returns when the other end is closed; nothing is ever sent
    os._exit(1)


def main() -> None:
    """Predict; a mistake ends in one line on standard error and exit code 1."""
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    from penumbra.inference.scan import predict_scans

    run, scan, out = (Path(word) for word in sys.argv[1:])
    try:
        predict_scans(run, [scan], out)
    except (PenumbraError, OSError) as error:
        print(f"penumbra: {first_line(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
