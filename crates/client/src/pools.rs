//! Pools, for the operator.

use types::native::{Pool, PoolCreate, PoolGrow, PoolList};

use crate::{Client, Result};

impl Client {
    /// All pools, sorted by name.
    pub async fn pools(&self) -> Result<Vec<Pool>> {
        let list: PoolList = self.get(&["pools"], &[]).await?;
        Ok(list.pools)
    }

    /// One pool.
    pub async fn pool(&self, name: &str) -> Result<Pool> {
        self.get(&["pools", name], &[]).await
    }

    /// Makes a pool.
    pub async fn pool_create(&self, wanted: &PoolCreate) -> Result<Pool> {
        self.post(&["pools"], wanted).await
    }

    /// Makes a pool larger.
    pub async fn pool_grow(&self, name: &str, by: &PoolGrow) -> Result<Pool> {
        self.post(&["pools", name, "grow"], by).await
    }

    /// Removes a pool that holds no volumes.
    pub async fn pool_remove(&self, name: &str) -> Result<()> {
        self.delete(&["pools", name], &[]).await
    }
}
