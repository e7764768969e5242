package millrace.peers;

import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Fills in where in the log a record stands: only a transformation sees that, not a converter. It writes into the
 * row that {@link TransactionConverter} has made, where Connect's own InsertField copies every row.
 */
public final class Place implements Transformation<SinkRecord> {
    static final String PARTITION = "partition";
    static final String SEQ = "seq";
    static final String LOG_OFFSET = "log_offset";

    @Override
    public SinkRecord apply(SinkRecord record) {
        ((Struct) record.value())
                .put(PARTITION, record.kafkaPartition())
                .put(SEQ, record.kafkaOffset())
                .put(LOG_OFFSET, record.kafkaOffset());
        return record;
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef();
    }

    @Override
    public void configure(Map<String, ?> settings) {}

    @Override
    public void close() {}
}
