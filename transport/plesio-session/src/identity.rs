//! Keys: a node's two, the pool's one, an operator's one, and their text forms.
//!
//! A node has an X25519 key for handshakes and an ed25519 key for what it signs; its id is the X25519 public
//! key. Nothing here reads or writes a file.

use ed25519_dalek::{Signer, SigningKey};
use plesio_wire::NodeId;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};

use crate::secret::{Entropy, Secret, SecretText};
use crate::text::{self, Lines, TextError};

const KIND_NODE: &str = "plesio-node-key 1";
const KIND_PUBLIC: &str = "plesio-node-public 1";
const KIND_POOL: &str = "plesio-pool-key 1";
const KIND_OPERATOR: &str = "plesio-operator-key 1";
const KIND_OPERATOR_PUBLIC: &str = "plesio-operator-public 1";

/// A node's public half: what an operator signs a ticket for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NodePublic {
    /// Key of its handshakes, and its id.
    pub x25519: [u8; 32],
    /// Key of its signatures.
    pub ed25519: [u8; 32],
}

impl NodePublic {
    /// The node's id.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        NodeId(self.x25519)
    }

    /// The text of a public key file.
    #[must_use]
    pub fn to_text(&self) -> alloc::string::String {
        text::write(KIND_PUBLIC, &[("x25519", &self.x25519), ("ed25519", &self.ed25519)])
    }

    /// Reads a public key file.
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text, KIND_PUBLIC)?;
        let public = Self { x25519: lines.read("x25519")?, ed25519: lines.read("ed25519")? };
        lines.finish()?;
        Ok(public)
    }
}

/// A node's secret keys.
#[derive(Clone, Debug)]
pub struct NodeSecret {
    x25519: Secret<32>,
    ed25519: Secret<32>,
}

impl NodeSecret {
    /// A new node.
    #[must_use]
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self { x25519: entropy.draw(), ed25519: entropy.draw() }
    }

    /// What others may know.
    #[must_use]
    pub fn public(&self) -> NodePublic {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("the resolver knows its curve");
        dh.set(self.x25519.expose());
        let mut x25519 = [0; 32];
        x25519.copy_from_slice(dh.pubkey());
        NodePublic {
            x25519,
            ed25519: SigningKey::from_bytes(self.ed25519.expose()).verifying_key().to_bytes(),
        }
    }

    pub(crate) const fn x25519(&self) -> &Secret<32> {
        &self.x25519
    }

    /// The text of a secret key file.
    #[must_use]
    pub fn to_text(&self) -> SecretText {
        let fields: [(&str, &[u8]); 2] =
            [("x25519", self.x25519.expose()), ("ed25519", self.ed25519.expose())];
        SecretText::new(text::write(KIND_NODE, &fields))
    }

    /// Reads a secret key file.
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text, KIND_NODE)?;
        let secret =
            Self { x25519: Secret::new(lines.read("x25519")?), ed25519: Secret::new(lines.read("ed25519")?) };
        lines.finish()?;
        Ok(secret)
    }
}

/// What all nodes of a mesh share: the mesh's id and the key that goes into every handshake.
#[derive(Clone, Debug)]
pub struct PoolKey {
    /// Which mesh.
    pub mesh: u64,
    key: Secret<32>,
}

impl PoolKey {
    /// A key for the mesh `mesh`.
    #[must_use]
    pub fn generate(mesh: u64, entropy: &mut Entropy) -> Self {
        Self { mesh, key: entropy.draw() }
    }

    /// The key of one group of nodes of this mesh: whose session is another makes no session with them.
    #[must_use]
    pub fn of_group(&self, session: u64) -> Self {
        Self { mesh: self.mesh, key: self.key.derive("plesio group key v1", session) }
    }

    pub(crate) const fn key(&self) -> &Secret<32> {
        &self.key
    }

    /// Sixteen bits that tell this pool's datagrams from others'.
    pub(crate) fn tag(&self) -> u16 {
        let mut hasher = blake3::Hasher::new_derive_key("plesio pool tag v1");
        hasher.update(&self.mesh.to_le_bytes()).update(self.key.expose());
        let [low, high, ..] = *hasher.finalize().as_bytes();
        u16::from_le_bytes([low, high])
    }

    /// The text of a pool key file.
    #[must_use]
    pub fn to_text(&self) -> SecretText {
        let fields: [(&str, &[u8]); 2] = [("mesh", &self.mesh.to_be_bytes()), ("key", self.key.expose())];
        SecretText::new(text::write(KIND_POOL, &fields))
    }

    /// Reads a pool key file.
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text, KIND_POOL)?;
        let pool =
            Self { mesh: u64::from_be_bytes(lines.read("mesh")?), key: Secret::new(lines.read("key")?) };
        lines.finish()?;
        Ok(pool)
    }
}

/// An operator's signing key; kept offline.
#[derive(Clone, Debug)]
pub struct OperatorSecret(Secret<32>);

impl OperatorSecret {
    /// A new operator.
    #[must_use]
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self(entropy.draw())
    }

    /// The ed25519 key that nodes list as an operator's.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        SigningKey::from_bytes(self.0.expose()).verifying_key().to_bytes()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        SigningKey::from_bytes(self.0.expose()).sign(message).to_bytes()
    }

    /// The text of an operator key file.
    #[must_use]
    pub fn to_text(&self) -> SecretText {
        SecretText::new(text::write(KIND_OPERATOR, &[("ed25519", self.0.expose())]))
    }

    /// Reads an operator key file.
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text, KIND_OPERATOR)?;
        let operator = Self(Secret::new(lines.read("ed25519")?));
        lines.finish()?;
        Ok(operator)
    }
}

/// An operator's public half: what the nodes of a mesh list as a key whose tickets count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OperatorPublic(pub [u8; 32]);

impl OperatorPublic {
    /// The text of an operator's public key file.
    #[must_use]
    pub fn to_text(&self) -> alloc::string::String {
        text::write(KIND_OPERATOR_PUBLIC, &[("ed25519", &self.0)])
    }

    /// Reads an operator's public key file.
    ///
    /// # Errors
    /// The first line that is not as it should be.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text, KIND_OPERATOR_PUBLIC)?;
        let public = Self(lines.read("ed25519")?);
        lines.finish()?;
        Ok(public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn entropy() -> Entropy {
        Entropy::new(&Secret::new([3; 32]))
    }

    #[test]
    fn every_key_file_reads_back() {
        let mut entropy = entropy();
        let node = NodeSecret::generate(&mut entropy);
        let again = NodeSecret::from_text(node.to_text().expose()).unwrap();
        assert_eq!(again.public(), node.public());
        assert_eq!(NodePublic::from_text(&node.public().to_text()), Ok(node.public()));
        assert_eq!(node.public().id().0, node.public().x25519);
        let pool = PoolKey::generate(0xABCD, &mut entropy);
        let again = PoolKey::from_text(pool.to_text().expose()).unwrap();
        assert_eq!((again.mesh, again.key.expose()), (pool.mesh, pool.key.expose()));
        let operator = OperatorSecret::generate(&mut entropy);
        assert_eq!(
            OperatorSecret::from_text(operator.to_text().expose()).unwrap().public(),
            operator.public()
        );
        let listed = OperatorPublic(operator.public());
        assert_eq!(OperatorPublic::from_text(&listed.to_text()), Ok(listed));
        assert_ne!(pool.tag(), PoolKey::generate(0xABCD, &mut entropy).tag());
    }

    #[test]
    fn every_group_has_a_key_of_its_own_and_the_tickets_of_its_mesh() {
        let pool = PoolKey::generate(5, &mut entropy());
        let (one, other) = (pool.of_group(1), pool.of_group(2));
        assert_eq!((one.mesh, other.mesh), (5, 5));
        assert_eq!(one.key.expose(), pool.of_group(1).key.expose());
        assert!(one.key.expose() != other.key.expose() && one.key.expose() != pool.key.expose());
    }

    #[test]
    fn a_damaged_key_file_is_named() {
        let text = NodeSecret::generate(&mut entropy()).public().to_text();
        let kind = NodePublic::from_text(&text.replace("public 1", "public 2"));
        assert_eq!(kind, Err(TextError::Kind { expected: KIND_PUBLIC }));
        let lines: std::vec::Vec<&str> = text.lines().collect();
        let missing = NodePublic::from_text(&lines[..2].join("\n"));
        assert_eq!(missing, Err(TextError::Line { name: "ed25519" }));
        let short = NodePublic::from_text(&text.replacen("x25519 ", "x25519", 1));
        assert_eq!(short, Err(TextError::Line { name: "x25519" }));
        assert_eq!(NodePublic::from_text(&format!("{text}more\n")), Err(TextError::Trailing));
        assert_eq!(NodePublic::from_text(&"x".repeat(5_000)), Err(TextError::Trailing));
    }

    #[test]
    fn no_secret_is_printed() {
        let mut entropy = entropy();
        let (node, pool) = (NodeSecret::generate(&mut entropy), PoolKey::generate(1, &mut entropy));
        let operator = OperatorSecret::generate(&mut entropy);
        let shown = format!("{node:?} {pool:?} {operator:?} {:?}", node.to_text());
        let secrets = [node.x25519.expose(), node.ed25519.expose(), pool.key.expose(), operator.0.expose()];
        for secret in secrets {
            assert!(!shown.contains(&format!("{}, {}", secret[0], secret[1])), "{shown}");
            assert!(!shown.contains(&format!("{:02x}{:02x}", secret[0], secret[1])), "{shown}");
        }
        assert!(shown.contains("Secret(..)"));
    }
}
