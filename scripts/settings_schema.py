"""Writes eks-rolling.schema.json anew: what an editor needs to complete and check a settings file."""

from pathlib import Path

from eks_rolling_config.schema import FILE_NAME, text

DOCUMENT = Path(__file__).resolve().parent.parent / FILE_NAME

if __name__ == "__main__":
    DOCUMENT.write_text(text())
