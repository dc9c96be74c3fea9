"""`python -m srgan_cli` is `srgan`."""

from srgan_cli.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
