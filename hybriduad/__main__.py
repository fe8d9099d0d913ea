"""``python -m hybriduad`` is ``hybriduad``."""

from hybriduad.cli.app import main

if __name__ == "__main__":
    main()
