
// A LiteX SoC with a processor, whose UART prints to a file; the character 4 is the last.
module bench(input wire clk, input wire rst, output reg finished);
    wire valid;
    wire [7:0] data;
    integer file;

    soc dut(
        .clk(clk), .rst(rst),
        .serial_source_valid(valid), .serial_source_ready(1'b1), .serial_source_data(data),
        .serial_sink_valid(1'b0), .serial_sink_ready(), .serial_sink_data(8'd0)
    );

    initial begin
        finished = 1'b0;
        file = $fopen("console.txt", "w");
    end

    always @(posedge clk)
        if (valid && !rst && !finished) begin
            if (data == 8'd4) begin
                $fclose(file);
                finished <= 1'b1;
            end else
                $fwrite(file, "%c", data);
        end
endmodule
