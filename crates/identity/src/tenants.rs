//! Tenants: namespaces that were made for somebody, their numbers and quotas.

use std::collections::{BTreeMap, HashSet};

use store::{Guard, Store, Txn};
use types::{Error, IdRange, Namespace, PoolName, Result, Role, Time, VolumeId, native};

use crate::{Disk, Held, Identities, TenantRecord, record::key, tokens::new_token};

/// The lowest number that no tenant has.
fn free_number(tenants: &BTreeMap<Namespace, TenantRecord>) -> Option<u32> {
    let taken: HashSet<u32> = tenants.values().filter_map(|one| one.number).collect();
    (0..IdRange::TENANTS).find(|number| !taken.contains(number))
}

/// Gives a number to the tenants of an earlier kraud.
pub(crate) async fn number_tenants(
    store: &dyn Store,
    tenants: &mut BTreeMap<Namespace, TenantRecord>,
) -> Result<()> {
    let without = |one: &&TenantRecord| one.number.is_none();
    let names: Vec<_> = tenants
        .values()
        .filter(without)
        .map(|one| one.name.clone())
        .collect();
    for name in names {
        let number = free_number(tenants);
        let Some(tenant) = tenants.get_mut(&name) else {
            continue;
        };
        tenant.number = number;
        let txn = Txn::new().put_record(key::tenant(&name), tenant)?;
        store.commit(txn).await?;
    }
    Ok(())
}

/// Tenants.
impl Identities {
    /// All of them, by name.
    pub fn tenants(&self) -> Vec<TenantRecord> {
        self.read(|tables| tables.tenants.values().cloned().collect())
    }

    /// Whether a namespace is the operator's own or a tenant's.
    pub fn exists(&self, namespace: &Namespace) -> bool {
        *namespace == Namespace::default()
            || self.read(|tables| tables.tenants.contains_key(namespace))
    }

    /// Makes a namespace, with a token for its owner. The files of its containers will lie in a
    /// dataset of `pool`.
    pub async fn tenant_create(
        &self,
        name: &Namespace,
        pool: PoolName,
    ) -> Result<(TenantRecord, native::TokenCreated)> {
        let _changing = self.0.changing.lock().await;
        if self.exists(name) {
            return Err(Error::conflict(format!("tenant {name} exists already")));
        }
        let number = self
            .read(|tables| free_number(&tables.tenants))
            .ok_or_else(|| {
                Error::conflict(format!(
                    "there are as many tenants as there are ids for: {}",
                    IdRange::TENANTS
                ))
            })?;
        let tenant = TenantRecord {
            name: name.clone(),
            created: Time::now(),
            removing: false,
            quota: native::Quota::default(),
            number: Some(number),
            disk: Some(Disk {
                dataset: VolumeId::random(),
                pool,
            }),
        };
        let (record, created) = new_token(name, Role::Owner, "owner", None);
        let key = key::tenant(name);
        let txn = Txn::new()
            .when(Guard::Absent(key.clone()))
            .put_record(key, &tenant)?
            .put_record(key::token(name, &record.id), &record)?;
        self.0.store.commit(txn).await?;
        self.write(|tables| {
            tables.tenants.insert(name.clone(), tenant.clone());
            tables.tokens.insert(record.id.clone(), Held::new(record));
        });
        Ok((tenant, created))
    }

    /// The machine's ids that a tenant's containers use; none of a namespace that is no tenant's.
    pub fn ids(&self, name: &Namespace) -> Option<IdRange> {
        self.read(|tables| tables.tenants.get(name)?.number)
            .and_then(IdRange::of_tenant)
    }

    /// Where the files of a tenant's containers lie.
    pub fn disk(&self, name: &Namespace) -> Option<Disk> {
        self.read(|tables| tables.tenants.get(name)?.disk.clone())
    }

    /// Gives a tenant of an earlier kraud a place for the files of its containers.
    pub async fn tenant_disk(&self, name: &Namespace, pool: PoolName) -> Result<()> {
        self.tenant_change(name, |tenant| {
            tenant.disk.get_or_insert_with(|| Disk {
                dataset: VolumeId::random(),
                pool,
            });
        })
        .await
    }

    async fn tenant_change(
        &self,
        name: &Namespace,
        change: impl FnOnce(&mut TenantRecord),
    ) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let mut tenant = self
            .read(|tables| tables.tenants.get(name).cloned())
            .ok_or_else(|| Error::not_found(format!("no such tenant: {name}")))?;
        change(&mut tenant);
        let txn = Txn::new().put_record(key::tenant(name), &tenant)?;
        self.0.store.commit(txn).await?;
        self.write(|tables| tables.tenants.insert(name.clone(), tenant));
        Ok(())
    }

    /// What a tenant may have; none of a namespace that is no tenant's.
    pub fn quota(&self, name: &Namespace) -> Option<native::Quota> {
        self.read(|tables| tables.tenants.get(name).map(|tenant| tenant.quota.clone()))
    }

    /// Sets what a tenant may have.
    pub async fn quota_set(&self, name: &Namespace, quota: native::Quota) -> Result<()> {
        self.tenant_change(name, |tenant| tenant.quota = quota)
            .await
    }

    /// Lets nobody of the tenant in any more: the first step of its removal.
    pub async fn tenant_close(&self, name: &Namespace) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let missing = || Error::not_found(format!("no such tenant: {name}"));
        let mut tenant = self
            .read(|tables| tables.tenants.get(name).cloned())
            .ok_or_else(missing)?;
        tenant.removing = true;
        let txn = Txn::new()
            .put_record(key::tenant(name), &tenant)?
            .delete_prefix(key::tokens(name))
            .delete_prefix(key::certificates(name));
        self.0.store.commit(txn).await?;
        self.write(|tables| {
            tables.tenants.insert(name.clone(), tenant);
            tables.certificates.retain(|_, c| c.namespace != *name);
            tables.tokens.retain(|_, held| {
                let stays = held.record().namespace != *name;
                if !stays {
                    held.ended.send_replace(true);
                }
                stays
            });
        });
        Ok(())
    }

    /// Forgets a tenant, of which nothing is left.
    pub async fn tenant_forget(&self, name: &Namespace) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let txn = Txn::new().delete(key::tenant(name));
        self.0.store.commit(txn).await?;
        self.write(|tables| tables.tenants.remove(name));
        Ok(())
    }
}
