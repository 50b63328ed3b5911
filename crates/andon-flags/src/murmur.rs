//! MurmurHash3, the 32-bit form for x86 by Austin Appleby, which flagd buckets with. Nothing else.

/// The hash of some bytes, seed 0.
pub fn hash(bytes: &[u8]) -> u32 {
    let mut h = 0u32;
    let mut blocks = bytes.chunks_exact(4);
    for block in &mut blocks {
        h = (h ^ scramble(u32::from_le_bytes([block[0], block[1], block[2], block[3]]))).rotate_left(13);
        h = h.wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let tail = blocks.remainder().iter().rev().fold(0u32, |k, byte| (k << 8) | u32::from(*byte));
    h ^= scramble(tail);
    // The length is folded in as 32 bits, as in the original.
    h ^= bytes.len() as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

fn scramble(k: u32) -> u32 {
    k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

/// The hash of two texts as if they were one.
pub fn hash_both(a: &[u8], b: &[u8]) -> u32 {
    let mut short = [0; 256];
    match short.get_mut(..a.len() + b.len()) {
        Some(both) => {
            both[..a.len()].copy_from_slice(a);
            both[a.len()..].copy_from_slice(b);
            hash(both)
        }
        None => hash(&[a, b].concat()),
    }
}

/// The bucket of a hash among `total`: whole numbers only, so every language agrees.
pub fn bucket(hash: u32, total: u32) -> u32 {
    ((u64::from(hash) * u64::from(total)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_every_other_evaluator_uses() {
        // From an independent implementation (mmh3 5.3.1).
        let vectors = [
            ("", 0),
            ("a", 0x3c25_69b2),
            ("ab", 0x9bbf_d75f),
            ("abc", 0xb3dd_93fa),
            ("test", 0xba6b_d213),
            ("Hello, world!", 0xc036_3e43),
            ("rampuser-1", 0xe97a_7fd4),
            ("flagkäse", 0x1a9e_205d),
            ("日本語", 0xa5a4_7297),
            ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0xc409_ea7b),
        ];
        for (text, expected) in vectors {
            assert_eq!(hash(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn two_texts_hash_as_one() {
        for n in [0, 3, 252, 253, 254, 1000] {
            let text = vec![b'x'; n];
            assert_eq!(hash_both(b"abc", &text), hash(&[b"abc", &text[..]].concat()));
        }
    }

    #[test]
    fn buckets_fill_their_whole_range() {
        assert_eq!((bucket(0, 100), bucket(u32::MAX, 100), bucket(1 << 31, 100)), (0, 99, 50));
    }
}
