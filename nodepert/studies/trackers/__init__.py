"""Trackers: callbacks that report runs to other loggers, by spec: `--log tensorboard`."""

from nodepert.studies.trackers.tracker import make_tracker as make_tracker
from nodepert.studies.trackers.tracker import trackers as trackers
