//! What an exchange needs of a connection: two halves that read and write owned buffers.
//!
//! The worker implements these over the runtime's sockets, the tests over scripted memory. A future that is dropped
//! before it is ready leaves its buffer with the operation; the bytes it would have brought are lost, so a half whose
//! read was dropped must be closed.

use std::future::ready;
use std::io;
use std::os::fd::RawFd;

use super::watch::{Lane, Watch};
use crate::view::slab::Buf;

/// The receiving half of a connection.
pub trait Reader {
    /// Reads into the buffer's range; 0 is the end of the stream.
    fn read(&mut self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)>;

    /// Reads like [`Reader::read`], but may be called back by the worker while nothing has arrived: then the error is
    /// [`is_parked`]. Used between two requests only.
    fn read_idle(&mut self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)> {
        self.read(buf)
    }

    /// The socket, when bytes can be moved from it without being read; `None` elsewhere.
    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    /// Waits until [`Reader::descriptor`] has bytes or its end.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>> {
        ready(Ok(()))
    }
}

/// The sending half of a connection.
pub trait Writer {
    /// Writes some of the buffer's range.
    fn write(&mut self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)>;

    /// Tells the peer that nothing more comes.
    fn finish(&mut self);

    /// The socket, when bytes can be moved to it without being written; `None` elsewhere.
    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    /// Waits until [`Writer::descriptor`] takes bytes.
    fn writable(&mut self) -> impl Future<Output = io::Result<()>> {
        ready(Ok(()))
    }
}

/// The error of [`Reader::read_idle`] when the worker called the read back.
pub fn parked() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

/// Whether a read was called back by the worker.
pub fn is_parked(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

/// How long a write may be without progress, and where that is watched.
#[derive(Clone, Copy)]
pub struct Stall<'a> {
    watch: &'a Watch,
    lane: Lane,
    ms: u32,
}

impl<'a> Stall<'a> {
    /// Guarded by this lane of `watch`, for `ms` milliseconds; 0 is for ever.
    pub fn new(watch: &'a Watch, lane: Lane, ms: u32) -> Self {
        Stall { watch, lane, ms }
    }
}

/// Writes the whole range of the buffer. The time runs anew with every byte that is taken, and has stopped at the end.
///
/// # Errors
/// Those of the connection; `WriteZero` when it takes no more.
pub async fn write_all<W: Writer>(writer: &mut W, stall: Stall<'_>, mut buf: Buf) -> (io::Result<()>, Buf) {
    let result = loop {
        if buf.is_empty() {
            break Ok(());
        }
        stall.watch.arm(stall.lane, stall.ms);
        let (result, returned) = writer.write(buf).await;
        buf = returned;
        match result {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => buf.advance(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    stall.watch.disarm(stall.lane);
    (result, buf)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Takes one byte at a time, a moment later each.
    struct Slow<'a>(&'a Watch, &'a RefCell<Vec<u64>>);

    impl Writer for Slow<'_> {
        async fn write(&mut self, buf: Buf) -> (io::Result<usize>, Buf) {
            self.1.borrow_mut().push(self.0.deadline(Lane::DownWrite));
            std::thread::sleep(std::time::Duration::from_millis(20));
            (Ok(1), buf)
        }

        fn finish(&mut self) {}
    }

    #[test]
    fn rule_97_the_time_for_a_write_runs_anew_with_every_byte() {
        let watch = Watch::default();
        let seen = RefCell::default();
        let mut writer = Slow(&watch, &seen);
        let written = pin!(write_all(&mut writer, Stall::new(&watch, Lane::DownWrite, 1000), Buf::heap(b"abc".to_vec(), None)));
        let Poll::Ready((Ok(()), _)) = written.poll(&mut Context::from_waker(Waker::noop())) else { panic!("nothing waits here") };
        let deadlines = seen.take();
        assert!(deadlines.len() == 3 && deadlines.is_sorted_by(|before, after| before < after), "{deadlines:?}");
        assert!(!watch.is_armed(Lane::DownWrite));
    }
}
