//! Measures how fast the server puts a pushed layer together: one of a gigabyte of which one
//! percent is new. Prints JSON. Run by `scripts/bench/push.sh assemble`.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    time::Instant,
};

use chunk::{Cutter, Hash, recipe, tar};
use image::{
    Allowance, LayerStore,
    push::{Assembly, Lists, Spaces, assemble},
};
use rand::{RngCore as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

const FILES: u64 = 8000;
const FILE: usize = 128 << 10;

/// A tar of many files; of each hundredth the bytes are those of another `build`.
fn layer(build: u64) -> Vec<u8> {
    let mut archive = Vec::with_capacity(FILES as usize * (FILE + 512) + 1024);
    let mut content = vec![0; FILE];
    for file in 0..FILES {
        let seed = if file % 100 == 0 {
            file + build * FILES
        } else {
            file
        };
        rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut content);
        let mut header = [0; 512];
        let name = format!("dir{}/file{file}", file % 50);
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{FILE:011o}").as_bytes());
        header[136..147].copy_from_slice(format!("{:011o}", 1_700_000_000 + build).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(header);
        archive.extend(&content);
    }
    archive.extend([0; 1024]);
    archive
}

struct Taker<'a> {
    recipe: recipe::Writer<Vec<u8>>,
    cutter: Cutter,
    list: &'a chunk::List,
    new: Vec<u8>,
    sent: HashSet<Hash>,
}

impl tar::Sink for Taker<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.recipe.bytes(bytes)
    }
    fn header(&mut self, header: &[u8; 512]) -> io::Result<()> {
        self.recipe.header(header)
    }
    fn padding(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.recipe.padding(bytes)
    }
    fn content(&mut self, content: &mut dyn Read) -> io::Result<()> {
        let (recipe, list, new, sent) =
            (&mut self.recipe, self.list, &mut self.new, &mut self.sent);
        let cut = self.cutter.cut(content, |bytes| {
            let hash = Hash::of(bytes);
            if let Some(number) = list.find(&hash) {
                return recipe.known(number as u64, bytes.len() as u32);
            }
            if sent.insert(hash) {
                new.write_all(&(bytes.len() as u32).to_le_bytes())?;
                new.write_all(bytes)?;
            }
            recipe.chunk(&hash, bytes.len() as u32)
        });
        cut.map(drop)
    }
}

/// Bytes that the process has had in memory at the most since `reset`.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(std::env::var("WORK").unwrap_or("/var/tmp".into()))?;
    let store = LayerStore::open(dir.path())?;
    let old = layer(0);
    let base = store.ingest(old.as_slice(), None)?;
    drop(old);
    let lists = Lists::new(store.clone());
    let list = lists.of(&base.meta.diff_id)?;
    let new = layer(1);
    let diff_id = types::Digest::from_sha256(Sha256::digest(&new).into());
    let mut taker = Taker {
        recipe: recipe::Writer::new(Vec::new()),
        cutter: Cutter::default(),
        list: &list,
        new: Vec::new(),
        sent: HashSet::new(),
    };
    let bytes = tar::split(new.as_slice(), &mut taker)?;
    drop(new);
    let space = Spaces::new(dir.path()).of("bench")?;
    let received = space.receive("s", taker.new.as_slice(), u64::MAX)?;
    let recipe = zstd::encode_all(taker.recipe.finish()?.as_slice(), 3)?;
    drop(taker.new);
    // From here on counts what memory there is at the most.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let begun = Instant::now();
    let bases = [base.meta.diff_id.clone()];
    let assembly = Assembly {
        lists: &lists,
        space,
        bases: &bases,
        own: &[],
    };
    assemble(&assembly, recipe.as_slice(), &diff_id, &Allowance::all())?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "bytes": bytes, "new_bytes": received.bytes, "recipe_bytes": recipe.len(), "seconds": seconds, "peak_memory": peak() })
    );
    Ok(())
}
