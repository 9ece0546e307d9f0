"""The image `cluster-autoscaler`: a stand-in that stays alive and says so. It scales nothing."""

import signal
import sys
import threading


def main() -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: told.set())
    print(f"cluster-autoscaler stand-in started: {' '.join(sys.argv[1:])}")
    rounds = 0
    while not told.wait(10.0):
        rounds += 1
        print(f"round {rounds}: no unneeded nodes")
    print("told to leave")


if __name__ == "__main__":
    main()
