//! What an exchange needs of a connection: two halves that read and write owned buffers.
//!
//! The worker implements these over the runtime's sockets, the tests over scripted memory. A future that is dropped
//! before it is ready leaves its buffer with the operation; the bytes it would have brought are lost, so a half whose
//! read was dropped must be closed.

use std::future::ready;
use std::io;
use std::os::fd::RawFd;

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

/// Writes the whole range of the buffer.
///
/// # Errors
/// Those of the connection; `WriteZero` when it takes no more.
pub async fn write_all<W: Writer>(writer: &mut W, mut buf: Buf) -> (io::Result<()>, Buf) {
    while !buf.is_empty() {
        let (result, returned) = writer.write(buf).await;
        buf = returned;
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
            Ok(count) => buf.advance(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buf),
        }
    }
    (Ok(()), buf)
}
