//! Named inputs and microbenchmarks of the Ringway data path.
