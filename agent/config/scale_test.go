package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/config"
)

// manyItems is a configuration of so many items in one policy.
func manyItems(n int) []byte {
	var b strings.Builder
	b.WriteString("agent: {state: /var/lib/coffer}\nkeys:\n  main: {uri: \"file:///etc/coffer/main.pem\"}\nvaults:\n  site: {store: \"file:///srv/coffer\", keys: [main]}\nitems:\n")
	for i := range n {
		fmt.Fprintf(&b, "  item-%05d:\n    vault: site\n    files:\n      paths: [/srv/customers/%05d/data, /srv/customers/%05d/mail]\n      exclude: [\"*.tmp\", \"cache/\"]\n", i, i, i)
	}
	b.WriteString("policies:\n  nightly:\n    schedule: daily at 02:00\n    items: [")
	for i := range n {
		fmt.Fprintf(&b, "item-%05d, ", i)
	}
	b.WriteString("]\n")
	return []byte(b.String())
}

// BenchmarkParseManyItems: nearly all of it is the YAML parser's, which copies the rest of
// a mapping for each of its entries.
func BenchmarkParseManyItems(b *testing.B) {
	text := manyItems(10_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := config.Parse("coffer.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}
