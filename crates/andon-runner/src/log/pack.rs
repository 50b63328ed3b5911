//! An output that is over, packed: pieces that are read one by one, each compressed on its own (Zstandard frames, RFC 8878), then an index, then its length
//! and a sign. `zstd --decompress` reads the pieces, since the index stands in a frame to be skipped.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};

use super::signs::Scanner;
use super::{Place, damaged};

/// Bytes of output in one piece.
const PIECE: usize = 256 * 1024;
/// How hard it is compressed: more takes longer than the disk.
const LEVEL: i32 = 3;
/// The last bytes of every packed output.
const SIGN: &[u8; 8] = b"andonlog";
/// A frame that readers of Zstandard skip, and the length that follows it.
const SKIPPED: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();
/// The largest index that is read, in bytes: of more than any output has.
const LARGEST: u64 = 64 << 20;

/// A compressed piece.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Frame {
    /// Bytes of output before it.
    pub at: u64,
    /// Where it stands in the file.
    from: u64,
}

/// Where everything is.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    /// Bytes of output.
    pub size: u64,
    /// The pieces, in order.
    pub frames: Vec<Frame>,
    /// For each piece in which one begins, where its first line does.
    pub lines: Vec<Place>,
    /// The first failure.
    pub failure: Option<Place>,
    /// Where the pieces end in the file.
    end: u64,
}

impl Index {
    /// That of a packed output; none: the file is none.
    pub(super) fn read(file: &mut File) -> io::Result<Option<Index>> {
        let length = file.metadata()?.len();
        let mut last = [0; 16];
        if length < last.len() as u64 + 8 {
            return Ok(None);
        }
        file.seek(SeekFrom::End(-16))?;
        file.read_exact(&mut last)?;
        if last[8..] != SIGN[..] {
            return Ok(None);
        }
        let size = u64::from_le_bytes(last[..8].try_into().map_err(|_| damaged())?);
        if size > LARGEST || size + 24 > length {
            return Err(damaged());
        }
        file.seek(SeekFrom::Start(length - 16 - size))?;
        let mut bytes = Vec::new();
        file.take(size).read_to_end(&mut bytes)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let ordered =
            index.frames.windows(2).all(|pair| pair[0].at < pair[1].at && pair[0].from < pair[1].from);
        let inside = index.frames.last().is_none_or(|last| last.at < index.size && last.from < index.end);
        let begins = index.frames.first().is_none_or(|first| first.at == 0);
        let whole = ordered
            && inside
            && begins
            && index.end <= length
            && (index.size == 0) == index.frames.is_empty();
        whole.then_some(Some(index)).ok_or_else(damaged)
    }

    /// The piece that this byte is in.
    pub(super) fn frame_of(&self, at: u64) -> usize {
        self.frames.partition_point(|frame| frame.at <= at).saturating_sub(1)
    }

    /// A piece, as it was.
    pub(super) fn frame(&self, file: &mut File, number: usize) -> io::Result<Vec<u8>> {
        let frame = self.frames.get(number).ok_or_else(damaged)?;
        let next = self.frames.get(number + 1);
        let (end, long) =
            next.map_or((self.end, self.size - frame.at), |next| (next.from, next.at - frame.at));
        if long > PIECE as u64 || end - frame.from > 2 * PIECE as u64 {
            return Err(damaged());
        }
        let mut packed = vec![0; (end - frame.from) as usize];
        file.seek(SeekFrom::Start(frame.from))?;
        file.read_exact(&mut packed)?;
        let bytes = zstd::bulk::decompress(&packed, long as usize).map_err(|_| damaged())?;
        if bytes.len() as u64 == long { Ok(bytes) } else { Err(damaged()) }
    }
}

/// A plain output, read as a packed one.
pub struct Packing<R> {
    from: R,
    index: Index,
    scanner: Scanner,
    /// What was packed and is not taken yet.
    ready: Vec<u8>,
    taken: usize,
    over: bool,
}

impl<R: Read> Packing<R> {
    /// Of this output.
    pub fn of(from: R) -> Packing<R> {
        Packing {
            from,
            index: Index::default(),
            scanner: Scanner::from(Place::BEGIN),
            ready: Vec::new(),
            taken: 0,
            over: false,
        }
    }

    fn piece(&mut self) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(PIECE);
        (&mut self.from).take(PIECE as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return self.end();
        }
        let at = self.index.size;
        let before = self.scanner.open;
        self.scanner.push(&bytes);
        // The first line that begins in this piece.
        let first = if before.at == at {
            Some(before)
        } else {
            memchr::memchr(b'\n', &bytes).map(|end| Place { at: at + end as u64 + 1, line: before.line + 1 })
        };
        self.index.lines.extend(first);
        self.index.frames.push(Frame { at, from: self.index.end });
        self.index.size += bytes.len() as u64;
        self.ready = zstd::bulk::compress(&bytes, LEVEL)?;
        self.index.end += self.ready.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.over = true;
        self.index.failure = self.scanner.last();
        let index = serde_json::to_vec(&self.index)?;
        let size = index.len() as u64;
        self.ready.clear();
        self.ready.extend_from_slice(&SKIPPED);
        self.ready.extend_from_slice(&u32::try_from(size + 16).map_err(|_| damaged())?.to_le_bytes());
        self.ready.extend_from_slice(&index);
        self.ready.extend_from_slice(&size.to_le_bytes());
        self.ready.extend_from_slice(SIGN);
        Ok(())
    }
}

impl<R: Read> Read for Packing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() {
            if self.over {
                return Ok(0);
            }
            self.taken = 0;
            self.ready.clear();
            self.piece()?;
        }
        let take = (self.ready.len() - self.taken).min(into.len());
        into[..take].copy_from_slice(&self.ready[self.taken..self.taken + take]);
        self.taken += take;
        Ok(take)
    }
}
