"""Dashboards, rules and alerts, made from the server's own table of metrics."""
