// Package config reads the agent's one configuration file. Config and the structs
// below it are its manual: each field says what it is, its default and its form.
//
// The file is YAML. What is not a field, a value that makes no sense and two
// alternatives at once are refused, all of them in one go, each with its line,
// column, field and what to do. Secrets are never in the file: it says where they
// are (file:/path, env:NAME).
package config

import (
	"strings"
	"time"
)

// Config is the whole file.
//
//	agent:  {state: /var/lib/coffer, socket_group: coffer}
//	keys:
//	  main: {uri: "pkcs11:token=backup;object=coffer-kek?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/coffer/pin"}
//	vaults:
//	  site: {store: "s3://minio.example:9000/backups", keys: [main]}
//	items:
//	  etc:  {vault: site, files: {paths: [/etc], exclude: ["*.tmp"]}}
//
// Names of keys, vaults and items are 1 to 64 of a-z, 0-9, ".", "_" and "-", and
// begin with a letter or digit.
type Config struct {
	Agent   Agent            `yaml:"agent"`
	Keys    map[string]Key   `yaml:"keys"`
	Custody Custody          `yaml:"custody"`
	Audit   Audit            `yaml:"audit"`
	Vaults  map[string]Vault `yaml:"vaults"`
	Items   map[string]Item  `yaml:"items"`
	// Policies say what runs when and what is kept. An item is in one at the most.
	Policies map[string]Policy `yaml:"policies"`
	// Notify says who is told when something is wrong, and when it is right again.
	Notify map[string]Notify `yaml:"notify"`

	// Name is the file's, for messages. It is not a field of the file.
	Name string `yaml:"-"`

	owners map[string]string `yaml:"-"` // policy by item, from Policies
}

// Agent is the service itself.
type Agent struct {
	// State is the folder of what the agent keeps for itself: vault ids, indexes,
	// the history of jobs. Losing it loses no backup. Default: /var/lib/coffer
	// (%ProgramData%\coffer on Windows).
	State string `yaml:"state"`
	// Socket is where the agent listens for coffer. Default: /run/coffer/coffer.sock
	// (\\.\pipe\coffer on Windows); it is "" here then.
	Socket string `yaml:"socket"`
	// SocketGroup may use the agent, as root may: the name or number of a group.
	// Default: none.
	SocketGroup string `yaml:"socket_group"`
	Log         Log    `yaml:"log"`
	// Roles say who else may use the agent, and for what. Root and the user that the
	// agent runs as may do everything.
	Roles Roles `yaml:"roles"`
	// Jobs is how many jobs run at once: 1 to 64, default 2.
	Jobs int `yaml:"jobs"`
	// Metrics is where Prometheus finds the agent: an address of this machine such as
	// 127.0.0.1:9464, or the absolute path of a socket. Default: nowhere.
	Metrics string `yaml:"metrics"`
}

// Roles are who may do what on the socket: each may do what those above it may. A name
// is that of a group, or its number.
type Roles struct {
	Viewer   []string `yaml:"viewer"`    // see states, points and jobs, and no data
	Operator []string `yaml:"operator"`  // and back up, verify, run policies, prune, cancel
	Restorer []string `yaml:"restorer"`  // and see and restore data
	KeyAdmin []string `yaml:"key_admin"` // and vaults, keys, holds, forget and erase
}

// Any tells whether anybody has a role.
func (r Roles) Any() bool { return len(r.Viewer)+len(r.Operator)+len(r.Restorer)+len(r.KeyAdmin) > 0 }

// Log is what the agent writes about itself, to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn or error
	Format string `yaml:"format"` // text (default) or json
}

// Key is a key of yours: an RSA key of 2048 to 4096 bits that opens vaults. It has
// exactly one of URI and Public.
type Key struct {
	// URI says where the private half is. It never has a PIN or passphrase in it.
	//
	//	pkcs11:token=T;object=O?module-path=/usr/lib/x.so&pin-source=file:/etc/coffer/pin
	//	file:///etc/coffer/kek.pem?passphrase-source=env:NAME
	//	https://NAME.vault.azure.net/keys/KEY            follows new versions
	//	https://NAME.vault.azure.net/keys/KEY/VERSION    stays with this one
	URI string `yaml:"uri"`
	// Public is a PEM file with the public half of an escrow key, whose private half
	// is kept offline: everything is wrapped with it too, and nothing opened.
	Public string `yaml:"public"`
	// Credential is how the agent shows Key Vault who it is, for an https URI alone.
	// Default: {kind: arc}.
	Credential *Credential `yaml:"credential"`
}

// keyVault tells whether the key is in Key Vault.
func (k *Key) keyVault() bool { return strings.HasPrefix(k.URI, "https:") }

// The kinds of credentials.
const (
	KindCertificate = "certificate" // of a service principal
	KindSecret      = "secret"      // of a service principal
	KindWorkload    = "workload"    // a token file of a workload identity
	KindArc         = "arc"         // the managed identity of an Azure Arc machine
)

// Credential is how the agent shows Key Vault who it is. It has the fields of its
// kind and no others.
type Credential struct {
	// Kind is certificate, secret, workload or arc (default).
	Kind   string `yaml:"kind"`
	Tenant string `yaml:"tenant"` // id of the directory; not for arc
	Client string `yaml:"client"` // id of the application; for arc of a user-assigned identity, if any
	// Certificate is a PEM file with certificate and private key, for certificate.
	Certificate string `yaml:"certificate"`
	// SecretSource is where the client secret is, for secret: file:/path or env:NAME.
	SecretSource string `yaml:"secret_source"`
	// TokenFile has the token of a workload identity, for workload.
	TokenFile string `yaml:"token_file"`
	// Authority is the cloud's, default https://login.microsoftonline.com/.
	// Sovereign clouds have their own. Not for arc: the machine knows its cloud.
	Authority string `yaml:"authority"`
	// CA is a PEM file of authorities to trust beside the system's.
	CA string `yaml:"ca"`
	// Proxy is the URL of an HTTP proxy. Default: HTTPS_PROXY and NO_PROXY.
	Proxy string `yaml:"proxy"`
}

// Custody is what is asked of keys, and how long cached secrets outlive them.
type Custody struct {
	// Grace is how long cached secrets go on while a key is unreachable, "12h" by
	// default, at most "30d". It does not apply to a key that is denied or gone.
	Grace Duration `yaml:"grace"`
	// Sizes of RSA keys that are allowed, default [2048, 3072, 4096]: all there are.
	Sizes []int `yaml:"sizes"`
	Rules Rules `yaml:"rules"`
}

// The effects of a rule that is broken.
const (
	EffectAudit    = "audit"    // it goes into the audit log
	EffectDeny     = "deny"     // what would break it is refused
	EffectDisabled = "disabled" // nothing
)

// Rules say what a vault and its keys must be. Each has an effect: audit, deny or
// disabled, the last by default unless said otherwise.
type Rules struct {
	CustomerManaged string `yaml:"customer_managed"` // no vault with software keys alone
	Hardware        string `yaml:"hardware"`         // keys in an HSM
	// PurgeProtection: keys that nobody can destroy at once. It is asked of keys in
	// Key Vault. Default: deny.
	PurgeProtection string `yaml:"purge_protection"`
	MinimumBits     *Bits  `yaml:"minimum_bits"`
	Escrow          string `yaml:"escrow"` // an escrow key, or a second key. Default: audit
	MaximumAge      *Age   `yaml:"maximum_age"`
}

// Bits is a rule on the size of keys.
type Bits struct {
	Bits   int    `yaml:"bits"`   // at least; 2048 to 4096
	Effect string `yaml:"effect"` // must be said
}

// Age is a rule on the age of key versions in use.
type Age struct {
	Days   int    `yaml:"days"`   // at most; 1 to 36500
	Effect string `yaml:"effect"` // must be said
}

// Audit is the log of what was done with keys.
type Audit struct {
	// Syslog also sends every line to the system's log (journald, syslog).
	Syslog bool `yaml:"syslog"`
	// MaxSize of a file before it is sealed and the next begun: 64 KiB to 1 GiB,
	// default 16 MiB.
	MaxSize Size `yaml:"max_size"`
}

// Duration is a length of time: "90s", "5m", "12h", "3d", or 0.
type Duration time.Duration

// Vault is a place for points, in object storage.
type Vault struct {
	// Store is where it is. It never has credentials in it.
	//
	//	file:///srv/backup
	//	s3://host[:port]/bucket[/prefix]?region=R&credentials=file:/etc/coffer/s3&ca=/etc/ssl/own.pem
	Store string `yaml:"store"`
	// Keys open it, any one of them: names from keys, the primary first. Escrow
	// keys are named here too, behind the primary, and open nothing.
	Keys []string `yaml:"keys"`
	// RestoreKeys open it too, and wrap nothing new: keys on their way out. None of
	// them is in Keys, and none is an escrow key.
	RestoreKeys []string `yaml:"restore_keys"`
	// Mode is software or customer-managed (no software key among Keys). It is
	// fixed when the vault is made and may be raised later, never lowered. Default:
	// by Keys; it is "" here then.
	Mode string `yaml:"mode"`
	// ID is the vault's, as coffer vault create prints it. The agent's state keeps
	// it too; it is needed here where that is lost, or on a second machine.
	ID string `yaml:"id"`
	// Compression is fastest (default), default, better or max.
	Compression string `yaml:"compression"`
	// Lock has the store refuse to delete what a point needs, where it can: S3 with
	// object lock, and a folder on a file system with the immutable attribute.
	Lock *Lock `yaml:"lock"`
	// Limits hold back what all jobs of the vault read from and write to its store.
	Limits Limits `yaml:"limits"`
	// Prune removes what retention lets go. Default: only when asked, coffer prune.
	Prune Prune `yaml:"prune"`
	// Verify proves again and again that what is kept can be restored.
	Verify Verify `yaml:"verify"`
}

// Limits are in bytes a second: "20 MiB". Default: none.
type Limits struct {
	Upload   Size `yaml:"upload"`   // to the store
	Download Size `yaml:"download"` // from the store
}

// Prune is when and how points and packs are removed that nothing needs any more. The
// credentials of the store must allow it; on a host whose may not, leave it out, and
// prune from another.
type Prune struct {
	Schedule string `yaml:"schedule"` // as a policy's; default: none
	// Grace is how long what is to go stays there, marked, before it goes: a restore
	// that has begun can end, and an operator can change his mind. Default 72h, at
	// least 1h.
	Grace Duration `yaml:"grace"`
	// Abandon is after how long a backup that never ended is taken for dead. It fails
	// then if it still runs, and loses nothing. Default 14d, at least grace.
	Abandon Duration `yaml:"abandon"`
	// RepackBelow rewrites packs of which less than this percentage is needed: 0
	// (never) to 90, default 50.
	RepackBelow *int `yaml:"repack_below"`
	// RepackMost bounds what one run rewrites, default "10 GiB".
	RepackMost Size `yaml:"repack_most"`
}

// Verify is when what is looked at. Schedules are as a policy's; default: none.
type Verify struct {
	Structure string `yaml:"structure"` // that all that points refer to is there
	// Data reads a part of all packs, opened and compared, so that every pack has been
	// read after Every at the most.
	Data  string   `yaml:"data"`
	Every Duration `yaml:"every"` // default 30d
	// Restore restores the newest point of an item into a scratch folder and compares
	// it: each run another item, the one whose last proof is the oldest.
	Restore string `yaml:"restore"`
	// Scratch is where; default: the folder scratch of the agent's state.
	Scratch string `yaml:"scratch"`
}

// The modes of a vault.
const (
	ModeSoftware        = "software"
	ModeCustomerManaged = "customer-managed"
)

// Lock is retention by the store.
type Lock struct {
	Days int    `yaml:"days"` // from the day of writing, at least 1
	Mode string `yaml:"mode"` // governance (default) or compliance, which nobody can lift
}

// Item is one thing to protect. It has exactly one source: files or stream.
type Item struct {
	Vault string `yaml:"vault"` // a name from vaults
	// Files are files and folders of this machine.
	Files *Files `yaml:"files"`
	// Stream is the output of a command, or what coffer backup ITEM --stdin sends.
	Stream *Stream `yaml:"stream"`
}

// Files are files and folders of this machine.
type Files struct {
	Paths []string `yaml:"paths"` // absolute; at least one
	// Exclude leaves out what matches, in gitignore syntax, relative to each path.
	Exclude []string `yaml:"exclude"`
	// ExcludeFiles are files of such patterns; Exclude comes after them.
	ExcludeFiles []string `yaml:"exclude_files"`
	// OneFilesystem does not descend into other file systems.
	OneFilesystem bool `yaml:"one_filesystem"`
	// SkipCacheDirs leaves out what is in folders with a CACHEDIR.TAG.
	SkipCacheDirs bool `yaml:"skip_cache_dirs"`
	// MaxFileSize leaves out larger files, e.g. "10 GiB". Default: no limit.
	MaxFileSize Size `yaml:"max_file_size"`
}

// Stream is one stream of bytes. Without a command it takes data only from coffer
// backup ITEM --stdin.
type Stream struct {
	// Command writes the data to its standard output and exits with 0 if it is
	// whole. It is a program, by its absolute path, and its arguments; no shell.
	Command []string `yaml:"command"`
	Name    string   `yaml:"name"` // of the file in the point; default: stream
	Env     []string `yaml:"env"`  // of the command, as NAME=value, besides the agent's; no secrets
	Dir     string   `yaml:"dir"`  // where it runs; absolute
}

// Size is a number of bytes: "10 GiB", "500 MB", "4096".
type Size int64
