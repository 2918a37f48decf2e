"""Trackers: callbacks that send what comes of runs elsewhere, by spec: `--log tensorboard`."""

from nodepert.trackers.tracker import make_tracker as make_tracker
from nodepert.trackers.tracker import trackers as trackers
