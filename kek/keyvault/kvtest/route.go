package kvtest

import (
	"net/http"
	"strings"
)

// Op is something that a client asks for.
type Op string

// The operations: those of a vault, and at the end those of Entra and of the Arc
// agent.
const (
	OpGet        Op = "get"
	OpVersions   Op = "versions" // list the versions of a key
	OpList       Op = "list"
	OpWrap       Op = "wrapKey"
	OpUnwrap     Op = "unwrapKey"
	OpEncrypt    Op = "encrypt"
	OpDecrypt    Op = "decrypt"
	OpCreate     Op = "create"
	OpImport     Op = "import"
	OpUpdate     Op = "update"
	OpRotate     Op = "rotate"
	OpGetPolicy  Op = "getrotationpolicy"
	OpSetPolicy  Op = "setrotationpolicy"
	OpBackup     Op = "backup"
	OpRestore    Op = "restore"
	OpDelete     Op = "delete"
	OpListGone   Op = "listdeleted"
	OpGetDeleted Op = "getdeleted"
	OpRecover    Op = "recover"
	OpPurge      Op = "purge"
	OpRandom     Op = "rng"

	OpDiscovery Op = "discovery"
	OpToken     Op = "token"
	OpArc       Op = "arc"
)

// Ops returns the operations of a vault.
func Ops() []Op {
	return []Op{OpGet, OpVersions, OpList, OpWrap, OpUnwrap, OpEncrypt, OpDecrypt, OpCreate, OpImport, OpUpdate, OpRotate,
		OpGetPolicy, OpSetPolicy, OpBackup, OpRestore, OpDelete, OpListGone, OpGetDeleted, OpRecover, OpPurge, OpRandom}
}

// writes tells whether the operation needs the primary region.
func (op Op) writes() bool {
	switch op {
	case OpCreate, OpImport, OpUpdate, OpRotate, OpSetPolicy, OpRestore, OpDelete, OpRecover, OpPurge:
		return true
	}
	return false
}

// action is the operation's name among the data actions of Azure RBAC.
func (op Op) action() string {
	const keys = "Microsoft.KeyVault/vaults/keys/"
	switch op {
	case OpGet, OpList, OpVersions, OpGetDeleted, OpListGone:
		return keys + "read"
	case OpWrap:
		return keys + "wrap/action"
	case OpUnwrap:
		return keys + "unwrap/action"
	case OpImport, OpCreate:
		return keys + "create/action"
	case OpUpdate:
		return keys + "update/action"
	case OpDelete:
		return keys + "delete"
	case OpGetPolicy:
		return "Microsoft.KeyVault/vaults/keyrotationpolicies/read"
	case OpSetPolicy:
		return "Microsoft.KeyVault/vaults/keyrotationpolicies/write"
	}
	return keys + string(op) + "/action"
}

// route is what a path of a vault means.
type route struct {
	op      Op
	key     string
	version string // "": the newest
}

// parse reads a path. Empty segments mean nothing: /keys/NAME/ is /keys/NAME, and
// /keys/NAME//wrapkey asks for the newest version.
func parse(method, path string) (route, bool) {
	var segments []string
	for s := range strings.SplitSeq(path, "/") {
		if s != "" {
			segments = append(segments, s)
		}
	}
	if len(segments) == 0 || len(segments) > 4 {
		return route{}, false
	}
	switch strings.ToLower(segments[0]) {
	case "keys":
		return parseKey(method, segments[1:])
	case "deletedkeys":
		return parseDeleted(method, segments[1:])
	case "rng":
		return route{op: OpRandom}, len(segments) == 1 && method == http.MethodPost
	}
	return route{}, false
}

// parseKey reads what is after /keys.
func parseKey(method string, segments []string) (route, bool) {
	switch len(segments) {
	case 0:
		return route{op: OpList}, method == http.MethodGet
	case 1:
		if method == http.MethodPost && strings.EqualFold(segments[0], "restore") {
			return route{op: OpRestore}, true
		}
		op, ok := map[string]Op{"GET": OpGet, "PUT": OpImport, "DELETE": OpDelete, "PATCH": OpUpdate}[method]
		return route{op: op, key: segments[0]}, ok
	case 2:
		verb := strings.ToLower(segments[1])
		if op, ok := map[string]Op{
			"POST create": OpCreate, "POST rotate": OpRotate, "POST backup": OpBackup, "GET versions": OpVersions,
			"GET rotationpolicy": OpGetPolicy, "PUT rotationpolicy": OpSetPolicy,
		}[method+" "+verb]; ok {
			return route{op: op, key: segments[0]}, true
		}
		if op, ok := cryptography(method, verb); ok {
			return route{op: op, key: segments[0]}, true
		}
		op, ok := map[string]Op{"GET": OpGet, "PATCH": OpUpdate}[method]
		return route{op: op, key: segments[0], version: segments[1]}, ok
	}
	op, ok := cryptography(method, strings.ToLower(segments[2]))
	return route{op: op, key: segments[0], version: segments[1]}, ok
}

func cryptography(method, verb string) (Op, bool) {
	op, ok := map[string]Op{"wrapkey": OpWrap, "unwrapkey": OpUnwrap, "encrypt": OpEncrypt, "decrypt": OpDecrypt}[verb]
	return op, ok && method == http.MethodPost
}

// parseDeleted reads what is after /deletedkeys.
func parseDeleted(method string, segments []string) (route, bool) {
	switch {
	case len(segments) == 0:
		return route{op: OpListGone}, method == http.MethodGet
	case len(segments) == 1:
		op, ok := map[string]Op{"GET": OpGetDeleted, "DELETE": OpPurge}[method]
		return route{op: op, key: segments[0]}, ok
	case len(segments) == 2 && method == http.MethodPost && strings.EqualFold(segments[1], "recover"):
		return route{op: OpRecover, key: segments[0]}, true
	}
	return route{}, false
}

// knownVersion tells whether v is a version of the REST API that the server knows.
func knownVersion(v string) bool {
	switch v {
	case "7.4", "7.5", "7.6", "2025-07-01":
		return true
	}
	return false
}
