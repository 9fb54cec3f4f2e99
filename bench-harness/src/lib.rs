//! Benchmarks of HTTP proxies: origin, load generator, comparison, report.
