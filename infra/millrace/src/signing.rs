//! Ed25519 keys and detached signatures, in the forms that OpenSSL reads and writes.
//!
//! A private key is PKCS #8 in PEM, as of `openssl genpkey -algorithm ed25519`; a public key is
//! `SubjectPublicKeyInfo` in PEM; a signature is its 64 bytes.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

const SEED_BYTES: usize = 32;
const PUBLIC_KEY_BYTES: usize = 32;

/// What comes before the seed in a PKCS #8 v1 document of an Ed25519 key (RFC 8410, section 7).
const PRIVATE_KEY_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What comes before the key in the `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410, section 4).
const PUBLIC_KEY_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// A PEM file of one key is far smaller.
const PEM_BYTES_MAX: u64 = 16 * 1024;

/// Whoever else may read the file could sign too.
const MODE_OTHERS: u32 = 0o077;

/// Where the signature of a file is.
pub fn signature_path(file: &Path) -> PathBuf {
    suffixed(file, ".sig")
}

/// Where the public key of a private one is.
pub fn public_key_path(key: &Path) -> PathBuf {
    suffixed(key, ".pub")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes a key: the private one for its owner alone, the public one beside it. Replaces nothing.
pub fn generate(path: &Path) -> anyhow::Result<()> {
    let mut seed = [0; SEED_BYTES];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
        .map_err(|error| anyhow::anyhow!("making the key: {error}"))?;
    for path in [path, &public_key_path(path)] {
        refuse_existing(path)?;
    }
    let private = pem(PRIVATE_LABEL, &[&PRIVATE_KEY_PREFIX[..], &seed].concat());
    let public = [&PUBLIC_KEY_PREFIX[..], pair.public_key().as_ref()].concat();
    write_new(path, private.as_bytes(), 0o600)?;
    write_new(
        &public_key_path(path),
        pem(PUBLIC_LABEL, &public).as_bytes(),
        0o644,
    )
}

/// A private key.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// Of a file.
    pub fn read(key: &Path) -> anyhow::Result<Self> {
        private_key(key).map(Self)
    }

    /// Signs a file: the signature goes beside it.
    pub fn sign(&self, file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        write_new(&signature_path(file), self.0.sign(bytes).as_ref(), 0o644)
    }
}

/// The signature beside a file must be that of its bytes.
pub fn check(file: &Path, bytes: &[u8], public_key: &Path) -> anyhow::Result<()> {
    let key = read_pem(public_key, PUBLIC_LABEL)?;
    let Some(key) = key
        .strip_prefix(&PUBLIC_KEY_PREFIX)
        .filter(|key| key.len() == PUBLIC_KEY_BYTES)
    else {
        bail!("{} is no Ed25519 public key", public_key.display());
    };
    let path = signature_path(file);
    let signature = std::fs::read(&path)
        .with_context(|| format!("reading the signature {}", path.display()))?;
    let verified = UnparsedPublicKey::new(&ED25519, key).verify(bytes, &signature);
    verified.map_err(|_| {
        anyhow::anyhow!(
            "{} is not the signature of {} by the key in {}: the file was changed, or signed with another key",
            path.display(),
            file.display(),
            public_key.display()
        )
    })
}

/// Writes a file that must not be there yet.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    refuse_existing(path)?;
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    opened
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .with_context(|| format!("writing {}", path.display()))
}

/// What is there is not replaced; said before anything is written.
pub fn refuse_existing(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        bail!(
            "{} is there already and is not replaced: name another file, or move it away",
            path.display()
        );
    }
    Ok(())
}

fn private_key(path: &Path) -> anyhow::Result<Ed25519KeyPair> {
    let metadata =
        std::fs::metadata(path).with_context(|| format!("reading the key {}", path.display()))?;
    if metadata.mode() & MODE_OTHERS != 0 {
        bail!(
            "others may read or change the key {}; run: chmod 600 {0}",
            path.display()
        );
    }
    let document = read_pem(path, PRIVATE_LABEL)?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document)
        .map_err(|error| anyhow::anyhow!("{} is no Ed25519 private key: {error}", path.display()))
}

fn pem(label: &str, document: &[u8]) -> String {
    let text = BASE64.encode(document);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn read_pem(path: &Path, label: &str) -> anyhow::Result<Vec<u8>> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX).read_to_string(&mut text))
        .with_context(|| format!("reading the key {}", path.display()))?;
    parse_pem(&text, label).with_context(|| format!("{} is no {label} in PEM", path.display()))
}

fn parse_pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let digits: String = body.split_ascii_whitespace().collect();
    BASE64.decode(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of RFC 8410, section 10.3: a private key and the public key that belongs to it (section 10.1).
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

    #[test]
    fn a_signature_is_of_one_file_and_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let (key, file) = (dir.path().join("key"), dir.path().join("file"));
        generate(&key).unwrap();
        Signer::read(&key)
            .and_then(|key| key.sign(&file, b"content"))
            .unwrap();
        let public = public_key_path(&key);
        check(&file, b"content", &public).unwrap();
        assert!(check(&file, b"content.", &public).is_err());
        let other = dir.path().join("other");
        generate(&other).unwrap();
        assert!(check(&file, b"content", &public_key_path(&other)).is_err());
        // The two are not mixed up, and nothing is replaced.
        assert!(check(&file, b"content", &key).is_err());
        assert!(Signer::read(&public).is_err());
        assert!(
            generate(&key).is_err()
                && Signer::read(&key)
                    .and_then(|key| key.sign(&file, b"content"))
                    .is_err()
        );
    }

    #[test]
    fn keys_have_the_forms_of_rfc_8410() {
        let dir = tempfile::tempdir().unwrap();
        let (key, file) = (dir.path().join("key"), dir.path().join("file"));
        let public = public_key_path(&key);
        write_new(&key, PRIVATE.as_bytes(), 0o600).unwrap();
        write_new(&public, PUBLIC.as_bytes(), 0o644).unwrap();
        Signer::read(&key)
            .and_then(|key| key.sign(&file, b"content"))
            .unwrap();
        check(&file, b"content", &public).unwrap();
        let document = parse_pem(PRIVATE, PRIVATE_LABEL).unwrap();
        assert!(document.starts_with(&PRIVATE_KEY_PREFIX));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        write_new(&key, PRIVATE.as_bytes(), 0o640).unwrap();
        let error = Signer::read(&key).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
