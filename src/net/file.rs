//! Reading files without holding a worker up: through the ring, or with epoll,
//! which has nothing to offer for files, on a thread beside the worker.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use monoio::buf::IoBufMut;

use super::buffers::{Buffer, Segments};
use super::now;
use super::offload::offload;
use super::operations::{Operation, completed};

/// An open file.
#[derive(Debug)]
pub struct File(Inner);

#[derive(Debug)]
enum Inner {
    Ring(monoio::fs::File),
    Thread(Arc<std::fs::File>),
}

impl File {
    /// Takes an open file into this worker's runtime.
    ///
    /// # Errors
    /// When the runtime cannot register it.
    pub fn adopt(file: std::fs::File) -> io::Result<Self> {
        Ok(Self(if monoio::utils::is_legacy() {
            Inner::Thread(Arc::new(file))
        } else {
            Inner::Ring(monoio::fs::File::from_std(file)?)
        }))
    }

    /// Reads into `buffer[range]` from `offset` on, which is in bytes; 0 bytes
    /// mean the end of the file.
    ///
    /// Dropping the future loses the buffer and nothing else.
    pub async fn read(
        &self,
        buffer: Buffer,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Buffer) {
        let (result, storage) = self
            .read_storage(buffer.into_storage(), range, offset)
            .await;
        (result, Buffer::from_storage(storage))
    }

    /// Reads at most `limit` bytes into the payloads of `segments`; otherwise
    /// as [`File::read`].
    pub async fn read_segments(
        &self,
        mut segments: Segments,
        limit: usize,
        offset: u64,
    ) -> (io::Result<usize>, Segments) {
        // Contiguously, and then spread: a positioned read that leaves gaps
        // is nothing that the runtime has, and moving 48 KiB within the cache
        // costs a tenth of encrypting them.
        let start = segments.payload(0, 0).start;
        let length = limit.min(segments.capacity());
        let storage = std::mem::take(segments.storage_mut());
        let (result, storage) = self
            .read_storage(storage, start..start + length, offset)
            .await;
        *segments.storage_mut() = storage;
        if let Ok(read) = result {
            segments.spread(read);
        }
        (result, segments)
    }

    async fn read_storage(
        &self,
        mut storage: Box<[u8]>,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Box<[u8]>) {
        match &self.0 {
            Inner::Ring(file) => {
                let target = storage.slice_mut(range);
                let (result, target) = file.read_at(target, offset).await;
                now::refresh();
                completed(Operation::File);
                (result, target.into_inner())
            }
            Inner::Thread(file) => {
                let file = Arc::clone(file);
                let read = offload(move || {
                    let target = storage.get_mut(range).unwrap_or_default();
                    (file.read_at(target, offset), storage)
                });
                read.await
                    .unwrap_or_else(|error| (Err(error), Box::default()))
            }
        }
    }
}
