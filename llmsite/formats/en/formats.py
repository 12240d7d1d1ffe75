"""Moments to the second, with the name of their time zone."""

DATETIME_FORMAT = "Y-m-d H:i:s T"
