package millrace.peers;

import io.debezium.data.Json;
import io.debezium.data.Uuid;
import io.debezium.time.ZonedTimestamp;
import java.nio.charset.StandardCharsets;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.storage.Converter;

/**
 * Reads what Millrace publishes, Avro in single-object encoding (schemas/avro/transaction.avsc), so that Kafka
 * Connect drains the very topic that Millrace drains. No registry and no generic record are in between: no
 * converter that is published costs less.
 *
 * <p>Setting {@code rows}: {@code plain} gives the ten fields, {@code ledger} also the columns partition, seq and
 * log_offset, which {@link Place} fills, and the time as a timestamp.
 */
public final class TransactionConverter implements Converter {
    private static final int HEADER_BYTES = 10;

    private boolean ledger;
    private Schema schema;

    @Override
    public void configure(Map<String, ?> settings, boolean isKey) {
        ledger = "ledger".equals(settings.get("rows"));
        SchemaBuilder builder = SchemaBuilder.struct().name("millrace.Transaction")
                .field("id", Uuid.schema())
                .field("kind", Schema.STRING_SCHEMA)
                .field("debit_account", Schema.STRING_SCHEMA)
                .field("credit_account", Schema.STRING_SCHEMA)
                .field("amount", Schema.INT64_SCHEMA)
                .field("currency", Schema.STRING_SCHEMA)
                .field("occurred_at", ledger ? ZonedTimestamp.schema() : Schema.INT64_SCHEMA)
                .field("reference", Schema.OPTIONAL_STRING_SCHEMA)
                .field("source", Schema.STRING_SCHEMA)
                .field("metadata", ledger ? Json.builder().optional().build() : Schema.OPTIONAL_STRING_SCHEMA);
        if (ledger) {
            builder.field(Place.PARTITION, Schema.INT32_SCHEMA)
                    .field(Place.SEQ, Schema.INT64_SCHEMA)
                    .field(Place.LOG_OFFSET, Schema.INT64_SCHEMA);
        }
        schema = builder.build();
    }

    @Override
    public SchemaAndValue toConnectData(String topic, byte[] value) {
        if (value.length < HEADER_BYTES || value[0] != (byte) 0xc3 || value[1] != 1) {
            throw new DataException("not Avro in single-object encoding");
        }
        Reader in = new Reader(value);
        Struct row = new Struct(schema)
                .put("id", in.string())
                .put("kind", in.string())
                .put("debit_account", in.string())
                .put("credit_account", in.string())
                .put("amount", in.number())
                .put("currency", in.string());
        long micros = in.number();
        row.put("occurred_at", ledger ? timestamp(micros) : (Object) micros)
                .put("reference", noneIfEmpty(in.string()))
                .put("source", in.string())
                .put("metadata", in.mapAsJson());
        return new SchemaAndValue(schema, row);
    }

    @Override
    public byte[] fromConnectData(String topic, Schema schema, Object value) {
        throw new DataException("this converter only reads");
    }

    private static String noneIfEmpty(String text) {
        return text.isEmpty() ? null : text;
    }

    private static String timestamp(long micros) {
        long seconds = Math.floorDiv(micros, 1_000_000L);
        int nanos = (int) Math.floorMod(micros, 1_000_000L) * 1_000;
        return LocalDateTime.ofEpochSecond(seconds, nanos, ZoneOffset.UTC) + "Z";
    }

    /** A cursor over Avro's binary encoding. */
    private static final class Reader {
        private final byte[] bytes;
        private int at = HEADER_BYTES;

        Reader(byte[] bytes) {
            this.bytes = bytes;
        }

        long number() {
            long raw = 0;
            for (int shift = 0; ; shift += 7) {
                byte next = bytes[at++];
                raw |= (long) (next & 0x7f) << shift;
                if (next >= 0) {
                    return raw >>> 1 ^ -(raw & 1);
                }
            }
        }

        String string() {
            int length = (int) number();
            String text = new String(bytes, at, length, StandardCharsets.UTF_8);
            at += length;
            return text;
        }

        /** A map of strings as a JSON object; none when it is empty. */
        String mapAsJson() {
            StringBuilder json = new StringBuilder();
            for (long count = number(); count != 0; count = number()) {
                if (count < 0) {
                    count = -count;
                    number(); // the block's size in bytes
                }
                for (; count > 0; count--) {
                    json.append(json.length() == 0 ? '{' : ',');
                    quote(json, string());
                    json.append(':');
                    quote(json, string());
                }
            }
            return json.length() == 0 ? null : json.append('}').toString();
        }

        private static void quote(StringBuilder into, String text) {
            into.append('"');
            for (int place = 0; place < text.length(); place++) {
                char c = text.charAt(place);
                if (c == '"' || c == '\\') {
                    into.append('\\').append(c);
                } else if (c < ' ') {
                    into.append(String.format("\\u%04x", (int) c));
                } else {
                    into.append(c);
                }
            }
            into.append('"');
        }
    }
}
