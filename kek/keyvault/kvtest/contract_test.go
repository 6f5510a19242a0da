package kvtest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// bearer gets a token as the client gets one.
func bearer(t *testing.T, s *kvtest.Server, resource string) http.Header {
	t.Helper()
	token, err := secretCredential(t, s).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	return http.Header{"Authorization": {"Bearer " + token.Token}}
}

func resource(s *kvtest.Server) string { return strings.TrimSuffix(s.Authority(), "/") }

// TestChallenge: without a valid token there is nothing but a challenge.
func TestChallenge(t *testing.T) {
	at := newClock()
	s := kvtest.Start(t, kvtest.Options{Clock: at.Now, TokenLifetime: time.Hour})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	good := bearer(t, s, resource(s))
	slash := bearer(t, s, resource(s)+"/")
	altered := good.Get("Authorization")
	altered = altered[:len(altered)-2] + "AA"
	challenge := `Bearer authorization="` + s.Authority() + s.Tenant() + `", resource="` + resource(s) + `"`
	check := func(name string, header http.Header, status int, text string) {
		t.Helper()
		r := raw(t, s, http.MethodGet, s.KeyURI("corp", "backup", "")+"?api-version=7.5", "", header)
		var body struct {
			Error struct{ Code, Message string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != status || !strings.Contains(body.Error.Message, text) {
			t.Errorf("%s: %s, %+v", name, r.Status, body)
		}
		if status == http.StatusUnauthorized && (body.Error.Code != "Unauthorized" || !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), challenge)) {
			t.Errorf("%s: %+v, challenge %q", name, body, r.Header.Get("WWW-Authenticate"))
		}
		if r.Header.Get("x-ms-request-id") == "" || r.Header.Get("x-ms-keyvault-region") == "" {
			t.Errorf("%s: headers %v", name, r.Header)
		}
		if date, err := http.ParseTime(r.Header.Get("Date")); err != nil || !date.Equal(at.Now()) {
			t.Errorf("%s: Date %q, want the server's %s", name, r.Header.Get("Date"), at.Now())
		}
	}
	check("right", good, 200, "")
	check("none", nil, 401, "AKV10000")
	check("basic", http.Header{"Authorization": {"Basic abc"}}, 401, "AKV10000")
	check("not a token", http.Header{"Authorization": {"Bearer abc"}}, 401, "AKV10046")
	check("altered", http.Header{"Authorization": {altered}}, 401, "AKV10046")
	check("other audience", slash, 401, "AKV10022: Invalid audience. Expected "+resource(s)+", found: "+resource(s)+"/.")
	at.Advance(time.Hour)
	check("expired", good, 401, "TokenExpired")
	at.Advance(-2 * time.Hour)
	check("not yet valid", good, 401, "TokenExpired")
	at.Advance(time.Hour)
	s.SetTenant("99999999-0000-0000-0000-000000000000")
	challenge = `Bearer authorization="` + s.Authority() + s.Tenant() + `", resource="` + resource(s) + `"`
	check("other tenant", good, 401, "AKV10032")
	if n := s.Calls(kvtest.OpGet); n != 1 {
		t.Errorf("%d calls counted, want the one with a valid token", n)
	}
}

// TestPaths: slashes mean nothing, versions of the interface mean something, names
// are checked, and bytes are base64url without padding.
func TestPaths(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{})
	version := s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	header := bearer(t, s, resource(s))
	header.Set("x-ms-client-request-id", "mine")
	base := s.VaultURL("corp")
	for _, test := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/keys/backup?api-version=7.4", "", 200, version},
		{"GET", "/keys/backup/?api-version=7.5", "", 200, version},
		{"GET", "//keys//backup//" + version + "/?api-version=7.6", "", 200, version},
		{"GET", "/keys/backup?api-version=2025-07-01", "", 200, `"hsmPlatform":"0"`},
		{"GET", "/keys/backup", "", 400, "api-version must be specified"},
		{"GET", "/keys/backup?api-version=9.9", "", 400, "is not recognized"},
		{"GET", "/keys/ba_ckup?api-version=7.5", "", 400, "invalid name"},
		{"GET", "/secrets/backup?api-version=7.5", "", 404, "NotFound"},
		{"POST", "/rng?api-version=7.5", `{"count":8}`, 404, "NotFound"}, // only of a Managed HSM
		{"PUT", "/keys/backup/" + version + "?api-version=7.5", "", 404, "NotFound"},
		{"POST", "/keys/backup//wrapkey?api-version=7.5", `{"alg":"RSA-OAEP-256","value":"c2VjcmV0"}`, 200, version},
		{"POST", "/keys/backup/wrapKey?api-version=7.5", `{"alg":"RSA-OAEP-256","value":"c2VjcmV0"}`, 200, version},
		{"POST", "/keys/backup/wrapkey?api-version=7.5", `{"alg":"RSA-OAEP-256","value":"c2VjcmV0MQ=="}`, 400, "body is not valid"},
		{"POST", "/keys/backup/wrapkey?api-version=7.5", `{"alg":"RSA-OAEP-256","value":"+/8"}`, 400, "body is not valid"},
		{"POST", "/keys/backup/wrapkey?api-version=7.5", `{"alg":`, 400, "body is not valid"},
		{"POST", "/keys/backup/wrapkey?api-version=7.5", "", 400, "BadParameter"},
		{"POST", "/keys/backup/create?api-version=7.5", `{"kty":"RSA","key_size":1024}`, 400, "key_size"},
		{"POST", "/keys/backup/create?api-version=7.5", `{"kty":"oct-HSM"}`, 400, "kty"},
		{"GET", "/keys/backup/versions?api-version=7.5&maxresults=26", "", 400, "maxresults"},
	} {
		r := raw(t, s, test.method, base+test.path, test.body, header)
		var text strings.Builder
		if err := r.Write(&text); err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != test.status || !strings.Contains(text.String(), test.text) {
			t.Errorf("%s %s: want %d and %q, got %s", test.method, test.path, test.status, test.text, &text)
		}
		if r.Header.Get("x-ms-client-request-id") != "mine" {
			t.Errorf("%s %s: the id of the request did not come back", test.method, test.path)
		}
	}
	r := raw(t, s, http.MethodPost, base+"/keys/backup?api-version=7.5", "", http.Header{"Authorization": header["Authorization"], "X-Http-Method": {"DELETE"}})
	if r.StatusCode != http.StatusOK || s.Versions("corp", "backup") != nil {
		t.Errorf("POST that stands for DELETE: %s", r.Status)
	}
}

// TestVersions: pages are small, the newest version has no place of its own, and no
// version is missing.
func TestVersions(t *testing.T) {
	for _, empty := range []bool{false, true} {
		s := kvtest.Start(t, kvtest.Options{PageSize: 2, EmptyPages: empty})
		for range 5 {
			s.CreateKey("corp", "backup", kvtest.KeyOptions{})
		}
		want := s.Versions("corp", "backup")
		pager := keys(t, s).NewListKeyPropertiesVersionsPager("backup", nil)
		var got []string
		var sizes []int
		for pager.More() {
			page, err := pager.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(page.Value))
			for _, item := range page.Value {
				got = append(got, item.KID.Version())
				if item.Attributes.Created == nil || !*item.Attributes.Enabled {
					t.Errorf("attributes %+v", item.Attributes)
				}
			}
		}
		pages := []int{2, 2, 1}
		if empty {
			pages = []int{0, 2, 2, 1}
		}
		if !slices.Equal(sizes, pages) {
			t.Errorf("pages of %v, want %v", sizes, pages)
		}
		if newest := want[4]; got[0] == newest || got[4] == newest {
			t.Errorf("the newest version is at an end of %v", got)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("versions %v, want %v", got, want)
		}
	}
}

// TestLists: keys are listed without versions, and deleted keys apart.
func TestLists(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{PageSize: 1})
	for _, name := range []string{"one", "two", "gone"} {
		s.CreateKey("corp", name, kvtest.KeyOptions{})
	}
	s.Delete("corp", "gone")
	c := keys(t, s)
	var live, deleted []string
	for pager := c.NewListKeyPropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Value {
			live = append(live, item.KID.Name()+item.KID.Version())
		}
	}
	for pager := c.NewListDeletedKeyPropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Value {
			deleted = append(deleted, item.KID.Name()+item.KID.Version()+" "+*item.RecoveryID)
		}
	}
	if !slices.Equal(live, []string{"one", "two"}) || !slices.Equal(deleted, []string{"gone " + s.VaultURL("corp") + "/deletedkeys/gone"}) {
		t.Errorf("live %q, deleted %q", live, deleted)
	}
}

// TestWrites makes, imports, changes, rotates, saves and brings back keys as the
// client does it.
func TestWrites(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{Vaults: []string{"corp", "other"}})
	c := keys(t, s)
	made, err := c.CreateKey(t.Context(), "backup", azkeys.CreateKeyParameters{
		Kty: to.Ptr(azkeys.KeyTypeRSAHSM), KeySize: to.Ptr[int32](3072),
		KeyOps: []*azkeys.KeyOperation{to.Ptr(azkeys.KeyOperationWrapKey), to.Ptr(azkeys.KeyOperationUnwrapKey)},
		Tags:   map[string]*string{"a": to.Ptr("b")},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := made.Key.KID.Version()
	if *made.Key.Kty != azkeys.KeyTypeRSAHSM || *made.Attributes.HSMPlatform != "2" || len(made.Key.KeyOps) != 2 || public(t, made.Key).N.BitLen() != 3072 {
		t.Errorf("created %+v", made.Key)
	}
	rotated, err := c.RotateKey(t.Context(), "backup", nil)
	if err != nil || rotated.Key.KID.Version() == first || *rotated.Key.Kty != azkeys.KeyTypeRSAHSM || *rotated.Tags["a"] != "b" {
		t.Errorf("rotated %+v, %v", rotated.Key, err)
	}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	updated, err := c.UpdateKey(t.Context(), "backup", first, azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Enabled: to.Ptr(false), Expires: &until}}, nil)
	if err != nil || *updated.Attributes.Enabled || !updated.Attributes.Expires.Equal(until) || updated.Key.KID.Version() != first {
		t.Errorf("updated %+v, %v", updated.Attributes, err)
	}
	if newest, err := c.GetKey(t.Context(), "backup", "", nil); err != nil || !*newest.Attributes.Enabled || newest.Key.KID.Version() != rotated.Key.KID.Version() {
		t.Errorf("newest %+v, %v", newest.Attributes, err)
	}
	saved, err := c.BackupKey(t.Context(), "backup", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.RestoreKey(t.Context(), azkeys.RestoreKeyParameters{KeyBackup: saved.Value}, nil)
	wantError(t, err, http.StatusConflict, "already exists")
	other, err := azkeys.NewClient(s.VaultURL("other"), secretCredential(t, s), &azkeys.ClientOptions{ClientOptions: transport(s)})
	if err != nil {
		t.Fatal(err)
	}
	copied, err := other.RestoreKey(t.Context(), azkeys.RestoreKeyParameters{KeyBackup: saved.Value}, nil)
	if err != nil || copied.Key.KID.Version() != rotated.Key.KID.Version() || !public(t, copied.Key).Equal(public(t, rotated.Key)) {
		t.Errorf("restored %+v, %v", copied.Key, err)
	}
	_, err = other.RestoreKey(t.Context(), azkeys.RestoreKeyParameters{KeyBackup: saved.Value[1:]}, nil)
	wantError(t, err, http.StatusBadRequest, "BadParameter")

	_, private := selfSigned(t, time.Now())
	imported, err := c.ImportKey(t.Context(), "mine", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{
		Kty: to.Ptr(azkeys.KeyTypeRSA), N: private.N.Bytes(), E: []byte{1, 0, 1}, D: private.D.Bytes(), P: private.Primes[0].Bytes(), Q: private.Primes[1].Bytes(),
	}}, nil)
	if err != nil || !public(t, imported.Key).Equal(&private.PublicKey) || imported.Key.D != nil {
		t.Errorf("imported %+v, %v", imported.Key, err)
	}
	set, err := c.UpdateKeyRotationPolicy(t.Context(), "backup", azkeys.KeyRotationPolicy{Attributes: &azkeys.KeyRotationPolicyAttributes{ExpiryTime: to.Ptr("P2Y")}}, nil)
	if err != nil || *set.Attributes.ExpiryTime != "P2Y" {
		t.Errorf("rotation policy %+v, %v", set.Attributes, err)
	}
	if got, err := c.GetKeyRotationPolicy(t.Context(), "backup", nil); err != nil || *got.Attributes.ExpiryTime != "P2Y" {
		t.Errorf("rotation policy %+v, %v", got.Attributes, err)
	}
}

// TestManagedHSM: other names and another audience, keys in hardware only, random
// bytes.
func TestManagedHSM(t *testing.T) {
	s := kvtest.Start(t, kvtest.Options{ManagedHSM: true})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	if !strings.Contains(s.VaultURL("corp"), "corp.managedhsm.localhost:") {
		t.Errorf("address %s", s.VaultURL("corp"))
	}
	c := keys(t, s)
	got, err := c.GetKey(t.Context(), "backup", "", nil)
	if err != nil || *got.Key.Kty != azkeys.KeyTypeRSAHSM {
		t.Errorf("key %+v, %v", got.Key, err)
	}
	if random, err := c.GetRandomBytes(t.Context(), azkeys.GetRandomBytesParameters{Count: to.Ptr[int32](16)}, nil); err != nil || len(random.Value) != 16 {
		t.Errorf("random bytes %x, %v", random.Value, err)
	}
	_, err = c.CreateKey(t.Context(), "soft", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA)}, nil)
	wantError(t, err, http.StatusBadRequest, "hardware only")
	_, err = c.RotateKey(t.Context(), "backup", nil)
	wantError(t, err, http.StatusBadRequest, "no rotation policy")
	if _, err = c.UpdateKeyRotationPolicy(t.Context(), "backup", azkeys.KeyRotationPolicy{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err = c.RotateKey(t.Context(), "backup", nil); err != nil {
		t.Error(err)
	}
	vault := bearer(t, s, resource(s)) // a token for vaults
	r := raw(t, s, http.MethodGet, s.KeyURI("corp", "backup", "")+"?api-version=7.5", "", vault)
	if r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token for vaults at an HSM: %s", r.Status)
	}
}
